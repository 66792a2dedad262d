"""Every error of the contract, in plain words."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.browser.playground import Playground, red_picture
from tests.service.api.serving import Service
from tests.service.api.test_errors import all_errors

Open = Callable[..., Playground]
BY_CODE = {kind.error_code: kind.status for kind in all_errors()}


@pytest.mark.slow
def test_every_error_is_shown_in_plain_words(open_page: Open) -> None:
    playground = open_page()
    playground.expect_console_error("Failed to load resource")
    playground.choose(red_picture())
    titles = set()
    refused = {code: status for code, status in BY_CODE.items() if status != 429}
    for code, status in refused.items():
        with answered_with(playground, code, status):
            playground.send()
            failure = playground.failure()
        title, advice, _ = filter(None, failure.split("\n"))
        assert title.endswith(".")
        assert code not in title + advice
        assert len(advice) > 20
        assert f"The server says: A text · {code} · request id-1" in failure
        titles.add(title)
    assert len(titles) == len(refused)


@contextmanager
def answered_with(playground: Playground, code: str, status: int) -> Iterator[None]:
    """Requests are answered with this error, and never reach the server."""
    answer = {
        "status": status,
        "headers": {"X-Request-Id": "id-1"},
        "content_type": "application/json",
        "body": json.dumps({"error": "A text", "error_code": code}),
    }
    playground.page.route("**/v1/upscale", lambda route: route.fulfill(**answer))
    yield
    playground.page.unroute("**/v1/upscale")


@pytest.mark.slow
@pytest.mark.parametrize("status", [0, 413, 502])
def test_an_answer_without_json_or_no_answer_is_reported(open_page: Open, status: int) -> None:
    playground = open_page()
    playground.expect_console_error("Failed to load resource")
    playground.choose(red_picture())
    playground.page.route(
        "**/v1/upscale",
        lambda route: route.fulfill(status=status, body="<h1>no</h1>") if status else route.abort(),
    )
    playground.send()
    title = playground.failure().split("\n")[0]
    if status:
        assert title == "Something between you and the server refused the request."
    else:
        assert title == "The server did not answer."


@pytest.mark.slow
@pytest.mark.parametrize("body", ["null", "[]", '{"error": {"message": "no"}}', "{"])
def test_json_of_another_form_than_the_contracts_is_reported(open_page: Open, body: str) -> None:
    playground = open_page()
    playground.expect_console_error("Failed to load resource")
    playground.choose(red_picture())
    playground.page.route("**/v1/upscale", lambda route: route.fulfill(status=403, body=body))
    playground.send()
    assert "Something between you and the server" in playground.failure()


@pytest.mark.slow
def test_a_changed_file_is_reported_and_not_mistaken_for_a_silent_server(
    open_page: Open, tmp_path: Path
) -> None:
    file = tmp_path / "photo.png"
    file.write_bytes(red_picture())
    playground = open_page()
    playground.expect_console_error("ERR_UPLOAD_FILE_CHANGED|ERR_FILE_NOT_FOUND")
    playground.page.set_input_files("#image", file)
    file.unlink()
    playground.send()
    assert "The file can no longer be read." in playground.failure()


@pytest.mark.slow
@pytest.mark.parametrize("key", ["upk_wrong", "ключ", " "])
def test_a_wrong_key_moves_the_focus_to_the_key_field(open_page: Open, key: str) -> None:
    playground = open_page()
    playground.expect_console_error("status of 401")
    playground.choose(red_picture())
    playground.send(key)
    assert "API key" in playground.failure()
    assert playground.focused() == "key"
    assert playground.page.get_attribute("#key", "aria-invalid") == "true"
    playground.send()
    playground.wait_for_result()
    assert playground.page.is_hidden("#failure")
    assert playground.page.get_attribute("#key", "aria-invalid") is None


@pytest.mark.slow
def test_without_a_picture_nothing_is_sent(open_page: Open) -> None:
    playground = open_page()
    playground.send()
    assert "Choose a picture first." in playground.failure()
    assert playground.focused() == "image"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "scale", "words"),
    [
        (b"\xff\xd8\xff no picture", 2, "This file is no picture, or it is damaged."),
        (b"GIF89a" + bytes(50), 2, "This kind of picture is not supported."),
        (red_picture(32, 32), 2, "at least 64 pixels"),
        (red_picture(1600, 70), 4, "at most 1500 px, at 2× 3000 px. Choose 2×, or a smaller"),
        (red_picture(3100, 70), 2, "At 2× a side may have at most 3000 px. Choose a smaller"),
    ],
)
def test_the_servers_own_refusals_are_shown(
    open_page: Open, data: bytes, scale: int, words: str
) -> None:
    playground = open_page()
    playground.expect_console_error("status of 400")
    playground.choose(data)
    playground.page.check(f"[name=scale][value='{scale}']", force=True)
    playground.send()
    assert words in playground.failure()


def test_the_page_has_a_text_for_every_error_code_of_the_contract(service: Service) -> None:
    """The codes of this service, and the one that the published enum has beside them."""
    words = service.get("/assets/errors.js").text
    for code in [*BY_CODE, "unknown_foreground"]:
        assert f"  {code}: [" in words


@pytest.mark.slow
def test_a_key_without_the_scope_is_reported_as_such(open_page: Open, service: Service) -> None:
    key = service.state.keys.create("balance", scopes=frozenset({"credits"}))
    playground = open_page()
    playground.expect_console_error("status of 401")
    playground.choose(red_picture())
    playground.send(key)
    assert "--scopes upscale" in playground.failure()
    assert "does not know" not in playground.text("failure-title")
