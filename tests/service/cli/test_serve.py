"""`upscaled serve` as an operator meets it: a process, its two streams, its signals."""

import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
import termios
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from functools import partial
from pathlib import Path

import psutil
import pytest
import requests

from tests.listening import free_port
from tests.running import NO_CAPABILITIES, UPSCALED, Server, clean_environment, run_upscaled, serve
from tests.service.pool.pools import picture


def small(
    data_dir: Path, *, is_waiting: bool = True, has_tables: bool = True, grace_s: str = "100"
) -> AbstractContextManager[Server]:
    """A server with small tiles and one model, so that it is quick to start and to stop."""
    return serve(
        data_dir,
        is_waiting=is_waiting,
        has_tables=has_tables,
        UPSCALED_MODEL_X2="upscaled-x4-faithful",
        UPSCALED_MODEL_X4="upscaled-x4-faithful",
        UPSCALED_TILE_WINDOW_PX="128",
        UPSCALED_SHUTDOWN_GRACE_S=grace_s,
    )


def upscale(server: Server, source: bytes, *, scale: int = 4) -> requests.Response:
    return requests.post(
        server.url + "/v1/upscale",
        headers={"X-API-KEY": server.key, "Accept": "image/*"},
        files={"image": source},
        data={"scale": str(scale)},
        timeout=120,
    )


def wait_under_way(server: Server) -> None:
    """Wait until an image has been received, and waits or is worked on."""
    for _ in range(3000):
        figures = requests.get(server.url + "/metrics", timeout=60).text
        if re.search(r"^upscaled_(running|queue)_images [1-9]", figures, re.MULTILINE):
            return
        time.sleep(0.02)
    raise TimeoutError


def workers_of(server: Server) -> list[psutil.Process]:
    return psutil.Process(server.process.pid).children(recursive=True)


def uses(process: psutil.Process, data_dir: Path) -> bool:
    try:
        return process.environ().get("UPSCALED_DATA_DIR") == str(data_dir)
    except psutil.Error:
        return False


def test_a_server_from_its_first_start_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UPSCALE_PORT", "1")
    with small(tmp_path, has_tables=False) as server, ThreadPoolExecutor() as clients:
        text = "".join(server.stdout)
        assert re.search(rf"curl {server.url}/v1/upscale .*X-API-KEY: {server.key}'", text)
        model = r"upscaled-x4-faithful by torch float32"
        assert re.search(rf"^ready \(\w+; x2 {model}, x4 {model}\)$", text, re.MULTILINE)
        assert server.key not in "".join(server.stderr)
        assert "UPSCALE_PORT is no setting, and is ignored" in server.stderr[0]
        workers = workers_of(server)
        running = clients.submit(upscale, server, picture(300))
        wait_under_way(server)
        server.process.send_signal(signal.SIGTERM)
        server.process.send_signal(signal.SIGTERM)  # twice is not more
        server.wait_said("SIGTERM")
        # Not ready before the listener closes.
        assert requests.get(server.url + "/readyz", timeout=60).status_code == 503
        assert server.process.wait(100) == 0
        assert running.result().status_code == 200
        assert len(running.result().content) > 10_000
        assert psutil.wait_procs(workers, timeout=60)[1] == []  # decoders see their worker's end
        assert "Traceback" not in "".join(server.stderr)
    assert_second_start_makes_no_key_and_raises_its_descriptor_limit(tmp_path, server.key)


def assert_second_start_makes_no_key_and_raises_its_descriptor_limit(
    data_dir: Path, key: str
) -> None:
    limits = ("sh", "-c", 'ulimit -Sn 100; ulimit -Hn 400; exec "$0" "$@"', *UPSCALED)
    with serve(data_dir, program=limits, is_waiting=False) as second:
        second.wait_listening()
        assert "API key" not in "".join(second.stdout)
        answer = requests.get(second.url + "/v1/credits", headers={"X-API-KEY": key}, timeout=60)
        assert answer.status_code == 200
        assert psutil.Process(second.process.pid).rlimit(psutil.RLIMIT_NOFILE) == (400, 400)
        second.wait_said("few_descriptors")


def test_a_port_in_use_is_reported_and_no_key_is_made(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        environment = clean_environment(UPSCALED_DATA_DIR=str(tmp_path / "data"))
        ended = run_upscaled(environment, "serve", "--port", port, is_checked=False)
    assert ended.returncode == 1
    assert ended.stderr == (
        f"upscaled: cannot listen on 127.0.0.1 port {port}: Address already in use "
        "(UPSCALED_HOST and UPSCALED_PORT say where)\n"
    )
    assert ended.stdout == ""
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("options", "settings", "status", "text"),
    [
        (["--host", "nohost.invalid"], {}, 1,
         r"cannot listen on nohost\.invalid port 0: the host name is unknown \(UPSCALED_HOST.*"),
        (["--host", "no..host"], {}, 1,
         r"cannot listen on no\.\.host port 0: the host name is unknown \(UPSCALED_HOST.*"),
        pytest.param([], {"UPSCALED_DATA_DIR": "/dev/null"}, 1,
                     "cannot use /dev/null: is no folder", marks=pytest.mark.slow),
        ([], {"UPSCALED_DATABASE_URL": "foo"}, 1,
         "UPSCALED_DATABASE_URL is not a database URL: must be .*"),  # and no folder is blamed
        ([], {"UPSCALED_MAX_QUEU": "3"}, 2, ".* did you mean UPSCALED_MAX_QUEUE[?]"),
    ],
)  # fmt: skip
def test_a_start_that_fails_is_reported_in_one_line_with_its_status(
    tmp_path: Path, options: list[str], settings: dict[str, str], status: int, text: str
) -> None:
    environment = clean_environment(**{"UPSCALED_DATA_DIR": str(tmp_path), **settings})
    ended = run_upscaled(environment, "serve", "--port", "0", *options, is_checked=False)
    assert ended.returncode == status
    assert re.fullmatch(f"upscaled: {text}\n", ended.stderr)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "value", "reason"),
    [
        ("UPSCALED_MODEL_X4", "realesrgan-x4plus", "upscaled models fetch realesrgan-x4plus"),
        pytest.param("UPSCALED_MODEL_X4", "nope", "nope", marks=pytest.mark.slow),
        pytest.param("UPSCALED_DEVICE", "cuda:63", "cuda", marks=pytest.mark.slow),
    ],
)
def test_a_setting_that_no_worker_can_serve_ends_the_start_with_status_2(
    tmp_path: Path, setting: str, value: str, reason: str
) -> None:
    settings = {"UPSCALED_DATA_DIR": str(tmp_path), "UPSCALED_WORKERS": "2", setting: value}
    ended = run_upscaled(clean_environment(**settings), "serve", "--port", "0", is_checked=False)
    assert ended.returncode == 2
    *_, last = ended.stderr.splitlines()
    assert re.match(rf"upscaled: .*{reason}", last)
    assert "Traceback" not in ended.stderr
    assert "ready (" not in ended.stdout
    assert not [process for process in psutil.process_iter() if uses(process, tmp_path)]


@pytest.mark.slow
def test_a_request_that_waits_when_the_grace_is_over_is_answered(tmp_path: Path) -> None:
    with small(tmp_path, is_waiting=False, grace_s="1") as server, ThreadPoolExecutor() as clients:
        server.wait_listening()
        running = clients.submit(upscale, server, picture(1500))
        wait_under_way(server)
        workers = workers_of(server)
        assert workers
        started = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - started < 25
        assert psutil.wait_procs(workers, timeout=60)[1] == []
        answer = running.result()
        assert (answer.status_code, answer.json()["error_code"]) == (500, "internal_error")


@pytest.mark.slow
def test_a_full_standard_output_stops_neither_the_start_nor_a_replacement(
    tmp_path: Path,
) -> None:
    port = str(free_port())
    full = ("sh", "-c", 'exec "$@" > /dev/full', "sh", *UPSCALED)
    with serve(
        tmp_path, program=full, arguments=("--port", port), is_waiting=False, UPSCALED_AUTH="none"
    ) as server:
        server.url = f"http://127.0.0.1:{port}"
        server.wait_said("stdout_unusable")
        server.wait_listening()
        server.wait_said("worker_ready")
        server.front_end().kill()
        server.wait_said("front_end_died")
        server.wait_listening()
        assert server.stop() == 0


@pytest.mark.slow
def test_a_second_ctrl_c_ends_the_grace(tmp_path: Path) -> None:
    with (
        small(tmp_path, is_waiting=False, grace_s="600") as server,
        ThreadPoolExecutor() as clients,
    ):
        server.wait_listening()
        running = clients.submit(upscale, server, picture(1500))
        wait_under_way(server)
        server.process.send_signal(signal.SIGINT)
        server.wait_said("SIGINT")
        assert server.stop(signal.SIGINT, timeout_s=10) == 0
        assert running.result().json()["error_code"] == "internal_error"


@pytest.mark.slow
def test_signals_that_end_other_programs_lose_no_request(tmp_path: Path) -> None:
    """Sent to the server and, as `systemctl kill` does, to its workers and decoders."""
    with small(tmp_path) as server, ThreadPoolExecutor() as clients:
        processes = [psutil.Process(server.process.pid), *workers_of(server)]
        running = clients.submit(upscale, server, picture(200))
        time.sleep(0.1)
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            for process in processes:
                process.send_signal(number)
            server.wait_said(number.name)
        assert running.result().status_code == 200
        assert upscale(server, picture(80)).status_code == 200
        assert all(process.is_running() for process in processes)
        assert server.stop() == 0
        assert "Traceback" not in "".join(server.stderr)


@pytest.mark.slow
def test_a_terminal_that_closes_ends_the_server_in_order(tmp_path: Path) -> None:
    """It is in a session of its own, whose terminal is gone: SIGHUP is sent by the kernel."""
    environment = clean_environment(UPSCALED_DATA_DIR=str(tmp_path), UPSCALED_PRECISION="exact")
    ours, theirs = os.openpty()
    with os.fdopen(theirs, "wb") as terminal:
        process = subprocess.Popen(
            [*UPSCALED, "serve", "--port", "0"],
            env=environment,
            stdin=terminal,
            stdout=subprocess.DEVNULL,
            stderr=terminal,
            start_new_session=True,
            preexec_fn=partial(fcntl.ioctl, 0, termios.TIOCSCTTY, 0),
        )
    try:
        said = b""
        while b"is ready on" not in said:
            said += os.read(ours, 4096)
        os.close(ours)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_a_third_ctrl_c_ends_the_server_with_a_request_in_flight(tmp_path: Path) -> None:
    with small(tmp_path, is_waiting=False, grace_s="600") as server:
        server.wait_listening()
        with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))) as idle:
            idle.sendall(b"POST /v1/upscale HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n")
            for _ in range(3):
                server.process.send_signal(signal.SIGINT)
                time.sleep(0.5)
            server.process.wait(60)


COUNTING = """
import asyncio, gc, sys

run = asyncio.Runner.run


def counting(*arguments):
    visited = len(gc.get_objects()) if gc.isenabled() else "never"
    print("visited:", visited, file=sys.stderr, flush=True)
    return run(*arguments)


asyncio.Runner.run = counting
from upscaled.cli import main

main()
"""


@pytest.mark.slow
def test_a_collection_of_garbage_does_not_visit_what_the_start_has_made(tmp_path: Path) -> None:
    """Else one stops all requests for as long as it takes: with Ray loaded for 0.1 s."""
    with serve(tmp_path, program=(sys.executable, "-c", COUNTING), is_waiting=False) as server:
        server.wait_said("visited:")
    visited = [line.split()[1] for line in server.stderr if line.startswith("visited:")]
    assert len(visited) == 1
    assert int(visited[0]) < 1000


def wait_for_worker(front_end: psutil.Process) -> psutil.Process:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for process in front_end.children():
            with suppress(psutil.Error):  # it has just ended
                if "upscaled.worker.main" in process.cmdline():
                    return process
        time.sleep(0.02)
    raise TimeoutError


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc")
def test_processes_of_its_user_cannot_read_its_environment(tmp_path: Path) -> None:
    """A worker is such a process; its own environment, without secrets, can be read."""
    program = (*NO_CAPABILITIES, *UPSCALED)
    with serve(
        tmp_path, program=program, is_waiting=False, AWS_SECRET_ACCESS_KEY="of-the-bucket"
    ) as server:
        server.wait_listening()
        front_end = server.front_end()
        worker = wait_for_worker(front_end)
        read = {
            process.pid: subprocess.run(
                [*NO_CAPABILITIES, "cat", f"/proc/{process.pid}/environ"], capture_output=True
            )
            for process in (psutil.Process(server.process.pid), front_end, worker)
        }
        is_read = {pid: done.returncode == 0 for pid, done in read.items()}
        assert is_read == {server.process.pid: False, front_end.pid: False, worker.pid: True}
        assert b"PATH=" in read[worker.pid].stdout
        assert b"of-the-bucket" not in read[worker.pid].stdout
