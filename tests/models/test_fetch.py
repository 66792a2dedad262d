"""Fetching from a real HTTP server on loopback."""

import dataclasses
import hashlib
import io
import re
import resource
import socket
import threading
import urllib.request
from collections.abc import Iterator
from http.client import HTTPMessage
from pathlib import Path

import pytest

from tests.models.file_server import (
    CONTENT,
    HALF,
    LENGTH,
    Handler,
    Server,
    breaks_off,
    fails_with,
    ignore_progress,
    redirects_to,
    sends,
    sends_without_length,
)
from upscaled_models.errors import FetchError
from upscaled_models.fetch import MAX_CONNECTIONS, _HttpsOnly, _Unusable, fetch
from upscaled_models.registry import ModelSpec, official_models
from upscaled_models.store import ModelStore


@pytest.fixture
def spec(server: Server) -> ModelSpec:
    """An official model whose file is CONTENT, at the loopback server."""
    return dataclasses.replace(
        official_models()[0],
        url=server.url,
        size_bytes=LENGTH,
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        file_name="file.pth",
    )


def part_of(store: ModelStore) -> Path:
    return store.models_dir / "file.pth.part"


def leave_part(store: ModelStore, data: bytes) -> None:
    store.models_dir.mkdir()
    part_of(store).write_bytes(data)


def fetch_refused(spec: ModelSpec, store: ModelStore, timeout_s: float = 5.0) -> str:
    with pytest.raises(FetchError) as caught:
        fetch(spec, store, ignore_progress, timeout_s=timeout_s)
    assert not (store.models_dir / "file.pth").exists()
    return str(caught.value)


def test_a_file_is_fetched_whole_and_installed_under_its_name(
    spec: ModelSpec, store: ModelStore, server: Server
) -> None:
    steps: list[tuple[int, int]] = []
    path = fetch(spec, store, lambda done, total: steps.append((done, total)))
    assert path == store.path(spec) == store.models_dir / "file.pth"
    assert path.read_bytes() == CONTENT
    assert [entry.name for entry in store.models_dir.iterdir()] == ["file.pth"]
    assert steps[0] == (0, LENGTH)
    assert steps[-1] == (LENGTH, LENGTH)
    assert steps == sorted(steps)
    assert server.ranges == [None]


def test_a_file_that_is_here_and_right_is_not_fetched_again(
    spec: ModelSpec, store: ModelStore, server: Server
) -> None:
    first = fetch(spec, store, ignore_progress)
    assert fetch(spec, store, ignore_progress) == first
    assert len(server.ranges) == 1


def test_a_file_that_is_here_and_wrong_is_replaced(spec: ModelSpec, store: ModelStore) -> None:
    store.models_dir.mkdir()
    (store.models_dir / "file.pth").write_bytes(CONTENT[:-1] + b"x")
    assert fetch(spec, store, ignore_progress).read_bytes() == CONTENT


def test_a_broken_connection_is_resumed_where_it_broke(
    spec: ModelSpec, store: ModelStore, server: Server
) -> None:
    server.failures = [breaks_off(HALF), breaks_off(1000)]
    assert fetch(spec, store, ignore_progress).read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={HALF}-", f"bytes={HALF + 1000}-"]


@pytest.mark.parametrize(
    ("part", "knows_ranges", "ranges", "begins_at"),
    [
        pytest.param(CONTENT[:HALF], True, [f"bytes={HALF}-"], HALF, id="goes on where it ended"),
        pytest.param(b"else" * 1000, False, ["bytes=4000-"], 0, id="no ranges: from the start"),
        pytest.param(CONTENT, True, [], None, id="complete: needs no server"),
        pytest.param(CONTENT + b"x", True, [None], 0, id="longer than the whole: anew"),
    ],
)
def test_a_part_file_is_completed(
    part: bytes,
    knows_ranges: bool,
    ranges: list[str | None],
    begins_at: int | None,
    spec: ModelSpec,
    store: ModelStore,
    server: Server,
) -> None:
    server.knows_ranges = knows_ranges
    leave_part(store, part)
    steps: list[int] = []
    path = fetch(spec, store, lambda done, _total: steps.append(done))
    assert path.read_bytes() == CONTENT
    assert server.ranges == ranges
    assert next(iter(steps), None) == begins_at


def test_a_server_that_brings_nothing_more_ends_the_fetch_and_the_part_is_kept(
    spec: ModelSpec, store: ModelStore, server: Server
) -> None:
    server.failures = [breaks_off(HALF), breaks_off(0)]
    assert f"stopped after {HALF} of {LENGTH} bytes" in fetch_refused(spec, store)
    assert part_of(store).read_bytes() == CONTENT[:HALF]
    assert fetch(spec, store, ignore_progress).read_bytes() == CONTENT


def test_a_silent_server_ends_the_fetch_and_the_part_is_kept(
    spec: ModelSpec, store: ModelStore, server: Server
) -> None:
    is_over = threading.Event()

    def falls_silent(handler: Handler) -> None:
        handler.answer(CONTENT, stop_after=HALF)
        handler.wfile.flush()
        is_over.wait(60)

    server.failures = [falls_silent, lambda _handler: is_over.wait(60)]
    try:
        assert "timed out" in fetch_refused(spec, store, timeout_s=0.3)
    finally:
        is_over.set()
    assert part_of(store).read_bytes() == CONTENT[:HALF]


@pytest.mark.parametrize("is_too_often", [False, True])
def test_a_connection_that_keeps_breaking_ends_the_fetch(
    is_too_often: bool, spec: ModelSpec, store: ModelStore, server: Server
) -> None:
    server.failures = [breaks_off(1)] * (MAX_CONNECTIONS - 1 + is_too_often)
    if is_too_often:
        assert f"broke {MAX_CONNECTIONS} times" in fetch_refused(spec, store)
        assert part_of(store).read_bytes() == CONTENT[:MAX_CONNECTIONS]
    else:
        assert fetch(spec, store, ignore_progress).read_bytes() == CONTENT


@pytest.fixture
def half_a_disk() -> Iterator[None]:
    """No file may grow beyond HALF: to the code the same as a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (HALF, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("half_a_disk")
def test_a_full_disk_ends_the_fetch_at_once(
    spec: ModelSpec, store: ModelStore, server: Server
) -> None:
    assert re.search(r"file\.pth\.part cannot be written: .*too large", fetch_refused(spec, store))
    assert len(server.ranges) == 1


def test_contents_with_another_hash_are_removed(
    spec: ModelSpec, store: ModelStore, server: Server
) -> None:
    server.failures = [sends(CONTENT[:-1] + b"x")]
    assert "another SHA-256" in fetch_refused(spec, store)
    assert list(store.models_dir.iterdir()) == []
    assert fetch(spec, store, ignore_progress).read_bytes() == CONTENT


def test_a_part_file_with_another_hash_is_removed_once_complete(
    spec: ModelSpec, store: ModelStore
) -> None:
    leave_part(store, b"x" * HALF)
    assert "another SHA-256" in fetch_refused(spec, store)
    assert fetch(spec, store, ignore_progress).read_bytes() == CONTENT


@pytest.mark.parametrize("page", [b"<html>please log in</html>", CONTENT[:-1], CONTENT + b"x"])
@pytest.mark.parametrize("knows_ranges", [True, False])
def test_a_response_of_another_length_is_refused_and_the_part_is_kept(
    page: bytes, knows_ranges: bool, spec: ModelSpec, store: ModelStore, server: Server
) -> None:
    server.knows_ranges = knows_ranges
    leave_part(store, CONTENT[:8])
    server.failures = [sends(page)]
    assert "the server offers" in fetch_refused(spec, store)
    assert part_of(store).read_bytes() == CONTENT[:8]


def test_an_answer_without_a_length_is_cut_off_when_it_grows_too_long(
    spec: ModelSpec, store: ModelStore, server: Server
) -> None:
    server.failures = [sends_without_length(CONTENT + b"x")]
    assert f"more than {LENGTH} bytes" in fetch_refused(spec, store)
    server.failures = [sends_without_length(CONTENT)]
    assert fetch(spec, store, ignore_progress).read_bytes() == CONTENT


def test_a_part_the_server_cannot_resume_is_begun_anew_by_the_next_fetch(
    spec: ModelSpec, store: ModelStore, server: Server
) -> None:
    leave_part(store, CONTENT[:HALF])
    server.failures = [fails_with(416)]
    assert "416" in fetch_refused(spec, store)
    assert fetch(spec, store, ignore_progress).read_bytes() == CONTENT
    assert server.ranges == [f"bytes={HALF}-", None]


@pytest.mark.parametrize("status", [403, 404, 429, 500, 503])
def test_a_refusing_server_is_an_error_with_its_status_and_the_way_out(
    status: int, spec: ModelSpec, store: ModelStore, server: Server
) -> None:
    server.failures = [fails_with(status)]
    text = fetch_refused(spec, store)
    assert str(status) in text
    for needed in (spec.name, spec.url, spec.sha256, str(LENGTH), str(store.target(spec))):
        assert needed in text


def test_without_a_network_the_error_explains_how_to_copy_the_file(
    spec: ModelSpec, store: ModelStore
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        spec = dataclasses.replace(spec, url=f"http://127.0.0.1:{free.getsockname()[1]}/file.pth")
    text = fetch_refused(spec, store)
    assert "refused" in text
    for needed in (spec.url, spec.sha256, str(store.target(spec)), f"models add {spec.name} FILE"):
        assert needed in text


def test_a_redirect_is_followed_on_loopback(
    spec: ModelSpec, store: ModelStore, server: Server
) -> None:
    server.failures = [redirects_to(server.url)]
    assert fetch(spec, store, ignore_progress).read_bytes() == CONTENT


OFF_HTTPS = ["http://192.0.2.1/file.pth", "ftp://127.0.0.1/file.pth", "file:///etc/passwd"]


@pytest.mark.parametrize("url", OFF_HTTPS)
def test_an_address_off_https_is_never_opened_nor_a_redirect_to_it_followed(
    url: str, spec: ModelSpec, store: ModelStore, server: Server
) -> None:
    server.failures = [redirects_to(url)]
    assert re.search(r"is not https|[Rr]edirect", fetch_refused(spec, store, timeout_s=1))
    assert len(server.ranges) == 1
    text = fetch_refused(dataclasses.replace(spec, url=url), store, timeout_s=1)
    assert f"{url} is not https" in text


def test_a_redirect_from_the_network_to_loopback_is_not_followed() -> None:
    """A server elsewhere must not send requests to this machine's own services."""
    request = urllib.request.Request("https://example.com/file.pth")
    url, body = "http://127.0.0.1:8000/file.pth", io.BytesIO()
    with pytest.raises(_Unusable, match=f"{url} is not https"):
        _HttpsOnly().redirect_request(request, body, 302, "", HTTPMessage(), url)
    assert body.closed


def test_the_error_of_a_model_without_an_address_names_the_path_of_its_file(
    spec: ModelSpec, store: ModelStore
) -> None:
    text = fetch_refused(dataclasses.replace(spec, url=""), store)
    assert "no address to fetch from" in text
    assert str(store.target(spec)) in text


def test_two_fetches_of_one_file_do_not_mix(
    spec: ModelSpec, store: ModelStore, server: Server
) -> None:
    second: list[str] = []

    def try_a_second_one(handler: Handler) -> None:
        second.append(fetch_refused(spec, store))
        handler.answer(CONTENT)

    server.failures = [try_a_second_one]
    assert fetch(spec, store, ignore_progress).read_bytes() == CONTENT
    assert "another fetch of it is under way" in second[0]


def test_an_interrupted_fetch_keeps_what_it_has(
    spec: ModelSpec, store: ModelStore, server: Server
) -> None:
    def interrupt(done: int, _total: int) -> None:
        if done >= HALF:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(spec, store, interrupt)
    kept = part_of(store).read_bytes()
    assert len(kept) >= HALF
    assert fetch(spec, store, ignore_progress).read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={len(kept)}-"]


def test_a_folder_that_cannot_be_made_is_an_error_that_names_the_target(
    spec: ModelSpec, store: ModelStore
) -> None:
    store.models_dir.write_text("a file where the folder should be")
    with pytest.raises(FetchError, match=str(store.target(spec))):
        fetch(spec, store, ignore_progress)
