"""Whatever goes wrong, nothing is lost: no credit, no result file, no temporary file.

The real server with a real worker and metering on. Each test looks at the disk and into the
database itself, past the server.
"""

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.service.observed_server import (
    IMAGE_PART,
    MAX_FILE_BYTES,
    MULTIPART,
    SMALL,
    WIDE,
    WITH_ALPHA,
    Service,
    Traces,
    encode,
    encode_gradient,
    origin,
    running,
    send_without_waiting,
)
from tests.service.state.disks import replaced_by_a_file, small_disk


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with (
        origin() as origin_url,
        running(tmp_path_factory.mktemp("lost"), origin_url) as started,
    ):
        started.server.run("credits", "add", "first", "1000")
        yield started


@pytest.fixture
def before(service: Service) -> Traces:
    """The traces before a test, with nothing under way."""
    return service.wait_for(lambda traces: traces.open_holds == 0)


def assert_nothing_happened(service: Service, before: Traces) -> None:
    # A client that left hears no answer after which everything would be settled.
    after = service.wait_for(lambda traces: traces.open_holds == 0)
    assert after == before
    assert after.strange_files == frozenset()


Send = Callable[[Service], requests.Response]

REFUSED: dict[str, tuple[int, str, Send]] = {
    "an empty body": (400, "invalid_request_body", lambda s: s.send_body(b"", "application/json")),
    "broken JSON": (400, "invalid_request_body", lambda s: s.send_body(b"{", "application/json")),
    "a truncated multipart": (
        400,
        "invalid_request_body",
        lambda s: s.send_body(IMAGE_PART + SMALL, MULTIPART),
    ),
    "no boundary": (
        400,
        "invalid_request_body",
        lambda s: s.send_body(IMAGE_PART + SMALL, "multipart/form-data"),
    ),
    "no image": (400, "missing_parameter", lambda s: s.send(files={"other": ("a", SMALL)})),
    "no scale": (400, "missing_parameter", lambda s: s.send(data={})),
    "scale 3": (400, "invalid_parameter", lambda s: s.send(scale=3)),
    "image as text": (
        400,
        "invalid_parameter",
        lambda s: s.send(files={"image": (None, "text")}),
    ),
    "63 px": (400, "invalid_parameter", lambda s: s.send(encode(63, 80))),
    "an image_url of another scheme": (
        400,
        "invalid_parameter",
        lambda s: s.send_url("file:///etc/passwd"),
    ),
    "an image_url that does not answer": (
        400,
        "invalid_parameter",
        lambda s: s.send_url("http://127.0.0.1:1/"),
    ),
    "an image_url refused by policy": (
        400,
        "invalid_parameter",
        lambda s: s.send_url("http://127.0.0.2/"),
    ),
    "an image_url that is missing": (400, "invalid_parameter", lambda s: s.send_url("/missing")),
    "an image_url too slow": (400, "invalid_parameter", lambda s: s.send_url("/slow")),
    "an image_url that breaks off": (400, "invalid_parameter", lambda s: s.send_url("/broken")),
    "an image_url that is no image": (400, "malformed_image", lambda s: s.send_url("/page")),
    "an image_url too large, declared": (
        400,
        "file_size_too_large",
        lambda s: s.send_url("/large"),
    ),
    "an image_url without an end": (
        400,
        "file_size_too_large",
        lambda s: s.send_url("/endless"),
    ),
    "an image_url of too many pixels": (
        400,
        "resolution_too_high",
        lambda s: s.send_url("/wide", scale=4),
    ),
    "another content type": (
        400,
        "unsupported_content_type",
        lambda s: s.send_body(SMALL, "image/jpeg"),
    ),
    "garbage": (400, "malformed_image", lambda s: s.send(os.urandom(5000))),
    "an empty file": (400, "malformed_image", lambda s: s.send(b"")),
    "an image cut in half": (400, "malformed_image", lambda s: s.send(SMALL[: len(SMALL) // 2])),
    "a PNG cut in half": (
        400,
        "malformed_image",
        lambda s: s.send(WITH_ALPHA[: len(WITH_ALPHA) // 2]),
    ),
    "a GIF": (400, "unsupported_image_format", lambda s: s.send(encode(80, 64, "GIF", "P"))),
    "a file too large": (
        400,
        "file_size_too_large",
        lambda s: s.send(SMALL + bytes(MAX_FILE_BYTES)),
    ),
    "a file too large, chunked": (
        400,
        "file_size_too_large",
        lambda s: s.send_body(
            iter([IMAGE_PART, *[bytes(10_000)] * 40, b"\r\n--b--\r\n"]), MULTIPART
        ),
    ),
    "too many pixels for scale 4": (
        400,
        "resolution_too_high",
        lambda s: s.send(WIDE, scale=4),
    ),
    "too many pixels for scale 2": (
        400,
        "resolution_too_high",
        lambda s: s.send(encode(3001, 64)),
    ),
    "no key": (401, "invalid_auth_token", lambda s: s.send(headers={})),
    "a wrong key": (
        401,
        "invalid_auth_token",
        lambda s: s.send(headers={"X-API-KEY": s.server.key[:-1] + "~"}),
    ),
    "another path": (404, "not_found", lambda s: requests.post(s.url + "d", timeout=60)),
    "another method": (405, "method_not_allowed", lambda s: requests.put(s.url, timeout=60)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_request_costs_and_leaves_nothing(
    service: Service, before: Traces, name: str
) -> None:
    status, error_code, send = REFUSED[name]
    answer = send(service)
    assert (answer.status_code, answer.json()["error_code"]) == (status, error_code)
    assert_nothing_happened(service, before)


def test_a_request_without_credits_costs_and_leaves_nothing(
    service: Service, before: Traces
) -> None:
    poor = service.server.create_key(f"poor-{random.getrandbits(32)}")
    answer = service.send(headers={"X-API-KEY": poor})
    assert (answer.status_code, answer.json()["error_code"]) == (403, "insufficient_api_credits")
    assert_nothing_happened(service, before)


def test_a_client_that_leaves_in_the_midst_of_its_upload(service: Service, before: Traces) -> None:
    connection = send_without_waiting(service, encode(400, 400), sent_part=0.5)
    time.sleep(0.2)
    connection.close()
    time.sleep(0.2)
    assert_nothing_happened(service, before)


def test_a_client_that_leaves_during_the_work(service: Service, before: Traces) -> None:
    with send_without_waiting(service, encode_gradient(1500)):
        held = service.wait_for(lambda traces: traces.open_holds == 1)
        assert held.balance == before.balance - 1
        time.sleep(0.5)
    assert_nothing_happened(service, before)
    assert service.send().status_code == 200  # and its worker is free again


def test_requests_that_a_full_queue_refuses_or_that_leave_it_cost_nothing(
    service: Service, before: Traces
) -> None:
    """Two of the largest images fill a worker, and one may wait."""
    _wait_for_figure(service, "running_images 0.0")  # a client that left goes on to a tile's end
    with ExitStack() as clients:
        for _ in range(3):
            clients.enter_context(send_without_waiting(service, encode_gradient()))
        held = service.wait_for(lambda traces: traces.open_holds == 3)
        _wait_for_figure(service, "running_images 2.0")  # only then may the third wait
        answer = service.send(encode_gradient())
        assert (answer.status_code, answer.json()["error_code"]) == (429, "rate_limit_exceeded")
        assert service.traces() == held
    assert_nothing_happened(service, before)


def _wait_for_figure(service: Service, line: str) -> None:
    """Wait until the metrics have this line, of this service's own."""
    for _ in range(1200):
        figures = requests.get(f"{service.server.url}/metrics", timeout=60).text
        if f"\nupscaled_{line}\n" in figures:
            return
        time.sleep(0.05)
    raise TimeoutError


@pytest.mark.slow
def test_an_image_whose_worker_is_killed_once_is_delivered_for_one_credit(
    service: Service, before: Traces
) -> None:
    starts = service.worker_starts()
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(service.send, encode_gradient(800))
        service.wait_for(lambda traces: traces.open_holds == 1)
        _kill_at_work(service)
        assert answer.result().status_code == 200
    assert service.worker_starts() == starts + 1
    after = service.wait_for(lambda traces: traces.open_holds == 0)
    assert (after.balance, after.captures) == (before.balance - 1, before.captures + 1)
    assert len(after.results) == len(before.results) + 1


@pytest.mark.slow
def test_an_image_whose_worker_is_killed_twice_costs_and_leaves_nothing(
    service: Service, before: Traces
) -> None:
    starts = service.worker_starts()
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(service.send, encode_gradient())
        service.wait_for(lambda traces: traces.open_holds == 1)
        _kill_at_work(service)
        service.wait_worker_started(starts + 1)
        assert service.traces().open_holds == 1
        _kill_at_work(service)
        refused = answer.result()
    assert (refused.status_code, refused.json()["error_code"]) == (500, "internal_error")
    assert_nothing_happened(service, before)
    assert service.send().status_code == 200


def _kill_at_work(service: Service) -> None:
    worker = service.worker()
    worker.send_signal(signal.SIGSTOP)  # so that it cannot finish before
    time.sleep(0.3)
    worker.kill()


def test_a_full_disk_costs_and_leaves_nothing(service: Service, before: Traces) -> None:
    results_dir = service.server.data_dir / "results"
    with small_disk(results_dir, 64 * 1024):
        answer = service.send(WITH_ALPHA, scale=4)  # noise of 320x256 px as PNG: 200 KB
        assert (answer.status_code, answer.json()["error_code"]) == (500, "internal_error")
        assert [path for path in results_dir.rglob("*") if path.is_file()] == []
    assert_nothing_happened(service, before)


def test_a_result_that_cannot_be_stored_costs_and_leaves_nothing(
    service: Service, before: Traces
) -> None:
    """The same where no disk can be mounted: a file is where the folder should be."""
    with replaced_by_a_file(service.server.data_dir / "results"):
        answer = service.send()
    assert (answer.status_code, answer.json()["error_code"]) == (500, "internal_error")
    assert_nothing_happened(service, before)


def test_each_delivered_image_costs_one_credit_and_each_url_one_file(
    service: Service, before: Traces
) -> None:
    binary: dict[str, Any] = {"headers": {"X-API-KEY": service.server.key, "Accept": "image/*"}}
    answers = [
        service.send(),
        service.send(WITH_ALPHA, scale="4"),
        service.send_url("/photo"),
        service.send(**binary),
        service.send(WITH_ALPHA, **binary),
    ]
    assert [answer.status_code for answer in answers] == [200] * 5
    names = {answer.json()["result_url"].rsplit("/", 1)[1] for answer in answers[:3]}
    after = service.traces()
    assert (after.balance, after.captures) == (before.balance - 5, before.captures + 5)
    assert (after.open_holds, after.strange_files) == (0, frozenset())
    assert after.results - before.results == names
    left = requests.get(
        f"{service.server.url}/v1/credits", headers={"X-API-KEY": service.server.key}, timeout=10
    )
    assert left.json()["credits_remaining"] == after.balance


@pytest.mark.slow
@pytest.mark.parametrize("clients", [20, 60])
def test_among_good_bad_and_leaving_clients_only_deliveries_are_charged(
    service: Service, before: Traces, clients: int
) -> None:
    bad = [send for name, (_, _, send) in REFUSED.items() if not name.startswith("an image_url")]

    def ask(number: int) -> int:
        kind = number % 4
        if kind == 0:
            with send_without_waiting(service, encode(300, 300)):
                time.sleep(random.uniform(0, 0.3))
            return 0
        if kind == 1:
            return bad[number % len(bad)](service).status_code
        return service.send(scale=2 if kind == 2 else 4).status_code

    with ThreadPoolExecutor(4) as pool:
        statuses = list(pool.map(ask, range(clients)))
    after = service.wait_for(lambda traces: traces.open_holds == 0)
    delivered = statuses.count(200)
    assert delivered > 0
    # A client may leave in the moment in which its image has been paid for, but none did twice.
    left = statuses.count(0)
    charged = before.balance - after.balance
    assert delivered <= charged <= delivered + left
    assert after.captures - before.captures == charged
    assert delivered <= len(after.results - before.results) <= charged
    assert after.strange_files == frozenset()


@pytest.mark.slow
def test_a_server_killed_at_work_starts_again_with_every_credit(tmp_path: Path) -> None:
    limits = {
        "UPSCALED_WORK_TIMEOUT_S": "6",
        "UPSCALED_RATE_PER_S": "0.001",
        "UPSCALED_RATE_BURST": "2",
    }
    with running(tmp_path, **limits) as service:
        key = service.server.key
        service.server.run("credits", "add", "first", "5")
        with send_without_waiting(service, encode_gradient()):
            service.wait_for(lambda traces: traces.open_holds == 1)
            time.sleep(0.3)
            service.server.stop(signal.SIGKILL)
        assert service.traces().balance == 4
    with running(tmp_path, **limits) as service:
        service.server.key = key
        started = service.traces()
        assert (started.balance, started.captures, started.open_holds) == (5, 0, 0)
        assert (started.results, started.strange_files) == (frozenset(), frozenset())
        check_deadline_and_rate(service)


def check_deadline_and_rate(service: Service) -> None:
    """The two refusals that need settings of their own."""
    late = service.send(encode_gradient())
    assert (late.status_code, late.json()["error_code"]) == (500, "internal_error")
    assert service.traces().balance == 5
    assert service.send().status_code == 200
    paid = service.traces()
    assert (paid.balance, paid.captures, len(paid.results)) == (4, 1, 1)
    hasty = service.send()
    assert (hasty.status_code, hasty.json()["error_code"]) == (429, "rate_limit_exceeded")
    assert_nothing_happened(service, paid)
