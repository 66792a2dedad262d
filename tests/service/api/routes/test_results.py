import asyncio
import contextlib

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from tests.service.api.answers import assert_error, assert_request_id
from tests.service.api.pictures import picture, size_of
from tests.service.api.serving import MakeService, Service
from upscaled.api.upscale_steps import find_result_name
from upscaled.fetch.url import UnusableUrl, check_source_url, parse_url
from upscaled.state import StoredResult
from upscaled.state.folder_results import FolderResults

UNKNOWN = "37c9d28a-99ef-49fe-9cad-d4c186127b08"
"""A UUID of the kind that results have, and none has."""


@pytest.mark.parametrize(("mode", "media_type"), [("RGB", "image/jpeg"), ("RGBA", "image/png")])
def test_get_and_head_give_the_true_type_and_length_of_a_result(
    service: Service, mode: str, media_type: str
) -> None:
    url = service.upload(picture(mode=mode)).json()["result_url"]
    head, got = requests.head(url, timeout=5), requests.get(url, timeout=5)
    for answer in (head, got):
        assert answer.status_code == 200
        assert answer.headers["Content-Type"] == media_type
        assert answer.headers["Content-Length"] == str(len(got.content))
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert_request_id(answer)
    assert head.content == b""
    assert size_of(got.content) == (160, 128)


def test_a_result_needs_no_key_and_no_redirect(service: Service) -> None:
    url = service.upload().json()["result_url"]
    answer = requests.get(url, allow_redirects=False, timeout=5)
    assert (answer.status_code, answer.history) == (200, [])


def test_a_large_result_is_sent_whole(make_service: MakeService) -> None:
    service = make_service()
    data = bytes(range(256)) * 20_000
    name = asyncio.run(service.state.results.store(data, "image/png"))
    assert service.get(f"/public/result/{name}").content == data


def test_a_result_is_gone_after_its_time(make_service: MakeService) -> None:
    now = [1_800_000_000.0]
    service = make_service(clock=lambda: now[0])
    url = service.upload().json()["result_url"]
    now[0] += 3599
    assert requests.get(url, timeout=5).status_code == 200
    now[0] += 1
    assert_error(requests.get(url, timeout=5), 404, "not_found")
    gone = requests.head(url, timeout=5)
    assert (gone.status_code, gone.content) == (404, b"")


@pytest.mark.parametrize(
    "name",
    [
        *(f"{UNKNOWN}.jpg", UNKNOWN, "x", "", "a/b", "..", "../upscaled.db"),
        *("%2e%2e%2fupscaled.db", "..%2fupscaled.db", "%00", "x" * 5000, "*", "%ff.jpg"),
    ],
)
def test_any_other_name_is_not_found(service: Service, name: str) -> None:
    session = requests.Session()
    asked = requests.Request("GET", service.url).prepare()
    asked.url = f"{service.url}/public/result/{name}"  # as it is: requests would tidy it up
    assert_error(session.send(asked, timeout=5), 404, "not_found")
    session.close()


def test_the_other_extension_is_another_name(service: Service) -> None:
    url = service.upload().json()["result_url"]
    assert_error(requests.get(url.replace(".jpg", ".png"), timeout=5), 404, "not_found")


def test_a_result_deleted_while_it_is_requested_is_not_found(
    make_service: MakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = make_service()
    url = service.upload().json()["result_url"]
    stored = asyncio.run(service.state.results.find(url.rpartition("/")[2]))

    async def find(self: FolderResults, file_name: str) -> StoredResult | None:
        return stored

    monkeypatch.setattr(FolderResults, "find", find)
    (path,) = service.settings.results_dir.rglob(url.rpartition("/")[2])
    path.unlink()
    assert_error(requests.get(url, timeout=5), 404, "not_found")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_a_result_is_only_read(service: Service, method: str) -> None:
    url = service.upload().json()["result_url"]
    answer = requests.request(method, url, timeout=5)
    assert_error(answer, 405, "method_not_allowed")
    assert answer.headers["Allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    "url",
    [
        "https://upscale.example.com/public/result/a.jpg",
        "https://upscale.example.com/images/public/result/a.jpg",
        "http://127.0.0.1:8000/public/result/a.jpg?download=1#x",
        "http://x/public/result/b.jpg/public/result/a.jpg",
    ],
)
def test_a_result_is_known_by_its_path_alone(url: str) -> None:
    assert find_result_name(parse_url(url)) == "a.jpg"


@pytest.mark.parametrize(
    "url",
    [
        *("http://127.0.0.1:8000/public/results/a.jpg", "http://127.0.0.1:8000/public/result"),
        *("http://127.0.0.1:8000/other", "http://127.0.0.1:8000/?/public/result/a.jpg"),
        "http://127.0.0.1:8000",
    ],
)
def test_any_other_path_is_none(url: str) -> None:
    assert find_result_name(parse_url(url)) is None


@given(st.text(alphabet="htps:/[]@.:%80１a1\\?# -é", max_size=40))
def test_whatever_passes_for_a_url_is_looked_at(tail: str) -> None:
    for url in (tail, f"http://{tail}", f"https://upscale.example.com{tail}"):
        with contextlib.suppress(UnusableUrl):
            find_result_name(parse_url(check_source_url(url)))
