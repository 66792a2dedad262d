import asyncio
import contextlib

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from tests.service.api.answers import assert_error
from tests.service.api.serving import MakeService, Service
from upscaled.api.upscale_steps import find_result_name
from upscaled.fetch.url import UnusableUrl, check_source_url, parse_url
from upscaled.state import StoredResult
from upscaled.state.folder_results import FolderResults

UNKNOWN = "37c9d28a-99ef-49fe-9cad-d4c186127b08"
"""A UUID of the kind that results have, and none has."""


def test_a_large_result_is_sent_whole(make_service: MakeService) -> None:
    service = make_service()
    data = bytes(range(256)) * 20_000
    name = asyncio.run(service.state.results.store(data, "image/png"))
    assert service.get(f"/public/result/{name}").content == data


def test_a_result_is_neither_found_nor_a_source_after_its_time(make_service: MakeService) -> None:
    now = [1_800_000_000.0]
    service = make_service(clock=lambda: now[0])
    url = service.upload().json()["result_url"]
    now[0] += 3599
    assert requests.get(url, timeout=60).status_code == 200
    assert service.send_json({"image_url": url, "scale": 2}).status_code == 200
    now[0] += 1
    assert_error(requests.get(url, timeout=60), 404, "not_found")
    gone = requests.head(url, timeout=60)
    assert (gone.status_code, gone.content) == (404, b"")
    assert_error(service.send_json({"image_url": url, "scale": 2}), 400, "invalid_parameter")


@pytest.mark.parametrize(
    "name",
    [
        *(f"{UNKNOWN}.jpg", UNKNOWN, "x", "", "a/b", "..", "../upscaled.db"),
        *("%2e%2e%2fupscaled.db", "..%2fupscaled.db", "%00", "x" * 5000, "*", "%ff.jpg"),
    ],
)
def test_any_other_name_is_not_found(service: Service, name: str) -> None:
    session = requests.Session()
    request = requests.Request("GET", service.url).prepare()
    request.url = f"{service.url}/public/result/{name}"  # as it is: requests would tidy it up
    assert_error(session.send(request, timeout=5), 404, "not_found")
    session.close()


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
    assert_error(requests.get(url, timeout=60), 404, "not_found")


@pytest.mark.parametrize(
    "url",
    [
        "https://upscale.example.com/public/result/a.jpg",
        "https://upscale.example.com/images/public/result/a.jpg",
        "http://127.0.0.1:8000/public/result/a.jpg?download=1#x",
        "http://x/public/result/b.jpg/public/result/a.jpg",
    ],
)
def test_the_name_of_a_result_is_read_from_the_path_alone(url: str) -> None:
    assert find_result_name(parse_url(url)) == "a.jpg"


@pytest.mark.parametrize(
    "url",
    [
        *("http://127.0.0.1:8000/public/results/a.jpg", "http://127.0.0.1:8000/public/result"),
        *("http://127.0.0.1:8000/other", "http://127.0.0.1:8000/?/public/result/a.jpg"),
        "http://127.0.0.1:8000",
    ],
)
def test_a_path_that_is_no_results_has_no_result_name(url: str) -> None:
    assert find_result_name(parse_url(url)) is None


@given(st.text(alphabet="htps:/[]@.:%80１a1\\?# -é", max_size=40))
def test_any_accepted_url_is_searched_for_a_result_without_an_error(tail: str) -> None:
    for url in (tail, f"http://{tail}", f"https://upscale.example.com{tail}"):
        with contextlib.suppress(UnusableUrl):
            find_result_name(parse_url(check_source_url(url)))
