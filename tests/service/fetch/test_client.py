"""The process that fetches: shared, bounded, killed, hung, cancelled and replaced."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from tests.running import REPOSITORY_DIR
from tests.service.api.origin import Origin, origin, response
from upscaled.errors import FileSizeTooLarge, InternalError, InvalidParameter, RateLimitExceeded
from upscaled.fetch.client import COMMAND, FetchClient
from upscaled.fetch.messages import PIECE_BYTES, FetchOptions
from upscaled.fetch.url import UNUSABLE_URL_TEXT
from upscaled.process.supervision import Limits

LIMIT_BYTES = 3_000_000
PHOTO = os.urandom(1_000_000)
OPTIONS = FetchOptions(LIMIT_BYTES, timeout_s=20, private_cidrs=("127.0.0.1/32",))


@pytest_asyncio.fixture
async def web() -> AsyncIterator[Origin]:
    async with origin() as running:
        running.answers["/photo"] = response(PHOTO)
        running.answers["/silent"] = say_nothing
        yield running


@pytest_asyncio.fixture
async def client() -> AsyncIterator[FetchClient]:
    async with fetching() as started:
        yield started


@asynccontextmanager
async def fetching(
    command: Sequence[str] = COMMAND, options: FetchOptions = OPTIONS, **limits: float
) -> AsyncIterator[FetchClient]:
    client = FetchClient(options, command, Limits(**{"work_s": 60, "silence_s": 10, **limits}))
    try:
        yield client
    finally:
        await client.close()
        assert client.pid is None


async def say_nothing(writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


@dataclass
class Budget:
    """Memory for `left_bytes`, which records the sizes of what is taken."""

    left_bytes: int = 10**9
    key_id: int = 1
    sizes: list[int] = field(default_factory=list)

    def count(self, size_bytes: int) -> None:
        self.left_bytes -= size_bytes
        if self.left_bytes < 0:
            raise RateLimitExceeded(5, reason="body_memory")
        self.sizes.append(size_bytes)


async def fetch(client: FetchClient, url: str) -> bytes:
    return await client.fetch(url, Budget())


async def assert_unusable(client: FetchClient, url: str) -> str:
    with pytest.raises(InvalidParameter) as refused:
        await fetch(client, url)
    assert refused.value.public_text == UNUSABLE_URL_TEXT
    return refused.value.detail


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


async def test_one_process_fetches_for_all_and_the_first_fetch_starts_it(
    web: Origin, client: FetchClient
) -> None:
    assert not client.pid
    bodies = await asyncio.gather(*[fetch(client, f"{web.url}/photo") for _ in range(20)])
    assert set(bodies) == {PHOTO}
    pid = client.pid
    assert pid is not None
    assert await fetch(client, f"{web.url}/photo") == PHOTO
    assert client.pid == pid
    assert psutil.Process(pid).memory_info().rss < 80 * 2**20


async def test_a_body_arrives_in_pieces_of_bounded_size(web: Origin, client: FetchClient) -> None:
    budget = Budget()
    await client.fetch(f"{web.url}/photo", budget)
    assert sum(budget.sizes) == len(PHOTO)
    assert max(budget.sizes) < 2 * PIECE_BYTES


async def test_an_empty_body_is_a_body(web: Origin, client: FetchClient) -> None:
    web.answers["/x"] = response(b"")
    assert await fetch(client, f"{web.url}/x") == b""


async def test_errors_of_the_process_are_raised_with_their_details_in_the_front_end(
    web: Origin, client: FetchClient
) -> None:
    web.answers["/missing"] = response(b"", status="404 Not Found")
    web.answers["/fits"] = response(bytes(LIMIT_BYTES))
    web.answers["/over"] = response(bytes(LIMIT_BYTES + 1))
    assert await assert_unusable(client, f"{web.url}/missing") == "status 404"
    assert "private address" in await assert_unusable(client, "http://127.0.0.2:8080/")
    assert len(await fetch(client, f"{web.url}/fits")) == LIMIT_BYTES
    with pytest.raises(FileSizeTooLarge) as refused:
        await fetch(client, f"{web.url}/over")
    assert refused.value.detail == f"declared {LIMIT_BYTES + 1} bytes"


@pytest.mark.parametrize(
    ("url", "detail"),
    [
        ("http://127.0.0.2:8080/" + "\N{GRINNING FACE}" * 8000, "private address"),
        ("http://127.0.0.1:8080/\ud800", "surrogate"),
    ],
)
async def test_any_url_crosses_to_the_process(client: FetchClient, url: str, detail: str) -> None:
    assert detail in await assert_unusable(client, url)


async def test_the_time_limit_holds_in_the_process(web: Origin) -> None:
    options = FetchOptions(LIMIT_BYTES, timeout_s=3, private_cidrs=OPTIONS.private_cidrs)
    async with fetching(options=options) as client:
        assert await fetch(client, f"{web.url}/photo") == PHOTO
        started = time.monotonic()
        assert await assert_unusable(client, f"{web.url}/silent") == "not finished within 3 s"
        assert 2.9 < time.monotonic() - started < 60


async def test_only_listed_hosts_are_fetched_from(web: Origin) -> None:
    options = FetchOptions(LIMIT_BYTES, 20, OPTIONS.private_cidrs, only_hosts=("localhost",))
    async with fetching(options=options) as client:
        assert await fetch(client, f"http://localhost:{web.port}/photo") == PHOTO
        assert "list" in await assert_unusable(client, f"{web.url}/photo")


async def test_a_fetch_that_is_cancelled_leaves_its_source(
    web: Origin, client: FetchClient
) -> None:
    left = asyncio.Event()

    async def wait_for_leaving(writer: asyncio.StreamWriter) -> None:
        while not writer.is_closing():
            writer.write(b"H")  # of a head that does not end
            await writer.drain()
            await asyncio.sleep(0.01)
        left.set()

    async def notice(writer: asyncio.StreamWriter) -> None:
        try:
            await wait_for_leaving(writer)
        except OSError:
            left.set()

    web.answers["/x"] = notice
    task = asyncio.create_task(fetch(client, f"{web.url}/x"))
    await until(lambda: web.connections == 1)
    pid = client.pid
    task.cancel()
    async with asyncio.timeout(60):
        await left.wait()
    assert await fetch(client, f"{web.url}/photo") == PHOTO
    assert client.pid == pid


async def test_a_body_counts_against_its_budget_and_a_full_one_ends_its_fetch_alone(
    web: Origin, client: FetchClient
) -> None:
    other = asyncio.create_task(client.fetch(f"{web.url}/photo", Budget(len(PHOTO))))
    with pytest.raises(RateLimitExceeded):
        await client.fetch(f"{web.url}/photo", Budget(len(PHOTO) - 1))
    assert await other == PHOTO


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
async def test_a_process_that_is_killed_fails_its_fetches_and_is_replaced(
    web: Origin, client: FetchClient, number: signal.Signals
) -> None:
    assert await fetch(client, f"{web.url}/photo") == PHOTO
    tasks = [asyncio.create_task(assert_unusable(client, f"{web.url}/silent")) for _ in range(3)]
    await until(lambda: web.connections == 4)
    pid = client.pid
    assert pid is not None
    os.kill(pid, number)
    details = await asyncio.gather(*tasks)
    assert all("fetch process ended" in detail for detail in details)
    assert await fetch(client, f"{web.url}/photo") == PHOTO
    assert client.pid not in (None, pid)


async def test_a_process_that_hangs_fails_its_fetches_and_is_replaced(web: Origin) -> None:
    async with fetching(silence_s=3) as client:
        assert await fetch(client, f"{web.url}/photo") == PHOTO
        pid = client.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        detail = await assert_unusable(client, f"{web.url}/photo")
        assert "was silent for 3 s" in detail
        assert not psutil.pid_exists(pid)
        assert await fetch(client, f"{web.url}/photo") == PHOTO


async def test_a_slow_source_does_not_count_as_silence_of_the_process(web: Origin) -> None:
    async def wait(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(5)
        writer.write(response(PHOTO))
        await writer.drain()

    web.answers["/slow"] = wait
    async with fetching(silence_s=3) as client:
        assert await fetch(client, f"{web.url}/slow") == PHOTO


async def test_a_process_that_never_sends_is_killed(web: Origin) -> None:
    silent = (sys.executable, "-c", "import time; time.sleep(100)")
    async with fetching(silent, start_s=0.5) as client:
        assert "silent for 0.5 s" in await assert_unusable(client, f"{web.url}/photo")


def process_that_sends(data: str) -> tuple[str, ...]:
    """Return the command of a process that sends the value of an expression, then hangs."""
    program = f"""
        import socket, struct, sys, time
        sock = socket.socket(fileno=int(sys.argv[sys.argv.index("--fd") + 1]))
        def frame(header, payload=b""):
            return struct.pack("!IQ", len(header), len(payload)) + header + payload
        sock.recv(100000)
        sock.sendall({data})
        time.sleep(100)
    """
    return (sys.executable, "-c", textwrap.dedent(program))


NONSENSE = {
    "no frame": "b'nonsense' * 100",
    "no JSON": "frame(b'{')",
    "no object": "frame(b'[]')",
    "an unknown message": "frame(b'{}')",
    "an unknown error": 'frame(b\'{"failed": 1, "as": "SystemExit"}\')',
    "a number that is none": "frame(b'{\"piece\": []}')",
    "deep JSON": "frame(b'[' * 60000)",
    "a piece too large": f"frame(b'{{\"piece\": 1}}', bytes({2 * PIECE_BYTES + 1}))",
}


@pytest.mark.parametrize("name", NONSENSE)
async def test_a_process_that_breaks_the_protocol_is_killed(web: Origin, name: str) -> None:
    async with fetching(process_that_sends(NONSENSE[name])) as client:
        assert "broke the protocol" in await assert_unusable(client, f"{web.url}/photo")


@pytest.mark.parametrize("is_over", [False, True])
async def test_a_process_that_sends_more_than_the_limit_fails_the_fetch(is_over: bool) -> None:
    piece = f"frame(b'{{\"piece\": 1}}', bytes({LIMIT_BYTES // 10}))"
    last = "frame(b'{\"piece\": 1}', b'x')" if is_over else "b''"
    sent = f'{piece} * 10 + {last} + frame(b\'{{"piece": 1, "done": true}}\')'
    async with fetching(process_that_sends(sent)) as client:
        if is_over:
            with pytest.raises(FileSizeTooLarge):
                await fetch(client, "http://127.0.0.1:8080/")
        else:
            assert len(await fetch(client, "http://127.0.0.1:8080/")) == LIMIT_BYTES


async def test_a_process_that_never_answers_is_waited_for_no_longer_than_a_fetch_may_take(
    web: Origin,
) -> None:
    async with fetching(work_s=4) as client:
        assert await fetch(client, f"{web.url}/photo") == PHOTO
        assert "no answer" in await assert_unusable(client, f"{web.url}/silent")


async def test_a_process_with_a_fault_of_its_own_ends_although_a_lookup_hangs(
    tmp_path: Path,
) -> None:
    started = tmp_path / "started"
    program = f"""
        import pathlib, socket, time
        def hang(*_, **__):
            pathlib.Path({str(started)!r}).touch()
            time.sleep(100)
        socket.getaddrinfo = hang
        from upscaled.fetch.child import main
        main()
    """
    async with fetching((sys.executable, "-c", textwrap.dedent(program)), silence_s=60) as client:
        refused = asyncio.create_task(assert_unusable(client, "http://hanging.example/"))
        await until(started.exists)
        process = client._process
        assert process is not None
        process._outbox.put_nowait((b"no JSON", b""))
        async with asyncio.timeout(60):
            assert "fetch process ended (exit status 1)" in await refused


async def test_processes_that_do_nothing_are_restarted_with_exponential_backoff(
    web: Origin,
) -> None:
    useless = (sys.executable, "-c", "")
    async with fetching(useless, backoff_s=0.2, max_backoff_s=100) as client:
        started = time.monotonic()
        for _ in range(4):  # between them 0.2, 0.4 and 0.8 s
            await assert_unusable(client, f"{web.url}/photo")
        assert time.monotonic() - started > 1.4


async def test_a_wait_for_a_process_longer_than_a_fetch_may_take_is_unusable(web: Origin) -> None:
    options = FetchOptions(LIMIT_BYTES, timeout_s=0.5, private_cidrs=OPTIONS.private_cidrs)
    async with fetching(
        (sys.executable, "-c", ""), options, backoff_s=60, max_backoff_s=60
    ) as client:
        await assert_unusable(client, f"{web.url}/photo")
        assert "in time" in await assert_unusable(client, f"{web.url}/photo")


async def test_a_process_that_cannot_be_started_is_the_services_own_fault(web: Origin) -> None:
    async with fetching(("/nowhere/python",)) as client:
        with pytest.raises(InternalError):
            await fetch(client, f"{web.url}/photo")


async def test_signals_for_the_service_do_not_end_it(web: Origin, client: FetchClient) -> None:
    await fetch(client, f"{web.url}/photo")
    pid = client.pid
    assert pid is not None
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        os.kill(pid, number)
    await asyncio.sleep(0.2)
    assert await fetch(client, f"{web.url}/photo") == PHOTO
    assert client.pid == pid


async def test_nothing_secret_is_in_its_environment(
    web: Origin, client: FetchClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("UPSCALED_DATABASE_URL", "HOME", "AWS_SECRET_ACCESS_KEY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "secret")
    await fetch(client, f"{web.url}/photo")
    environment = Path(f"/proc/{client.pid}/environ").read_bytes()
    assert b"PATH=" in environment
    assert b"secret" not in environment


def test_the_process_ends_with_the_front_end() -> None:
    program = """
        import asyncio
        from types import SimpleNamespace
        from upscaled.fetch.client import FetchClient
        from upscaled.fetch.messages import FetchOptions
        from upscaled.fetch.url import UnusableUrl

        async def run():
            client = FetchClient(FetchOptions(1000, 60, ("127.0.0.1/32",)))
            try:
                await client.fetch("http://127.0.0.2:8080/", SimpleNamespace(key_id=1))
            except UnusableUrl:
                print(client.pid, flush=True)
            await asyncio.sleep(100)

        asyncio.run(run())
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=REPOSITORY_DIR,
        stdout=subprocess.PIPE,
        text=True,
    ) as front_end:
        assert front_end.stdout is not None
        process = psutil.Process(int(front_end.stdout.readline()))
        front_end.kill()
    assert psutil.wait_procs([process], timeout=60)[1] == []
