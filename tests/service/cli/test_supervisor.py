"""The supervisor of the front end: what it replaces, when, and how the service ends."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.running import REPOSITORY_DIR
from upscaled.cli.supervisor import MAX_FAILED_STARTS

# Short, and all the same long enough for a machine that has much else to do.
QUICK = {"silence_s": 3.0, "backoff_s": 0.05}


@dataclass
class Service:
    process: subprocess.Popen[str]
    folder: Path
    port: int

    def front_ends(self) -> list[int]:
        """Process ids, the first front end's first."""
        files = sorted(self.folder.iterdir(), key=lambda file: int(file.stem))
        return [int(file.suffix[1:]) for file in files]

    def restarts(self) -> list[int]:
        """The count that each front end was given, the first front end's first."""
        files = sorted(self.folder.iterdir(), key=lambda file: int(file.stem))
        return [int(file.read_text()) for file in files]

    def wait_ready(self, times: int = 1) -> None:
        """Wait until that many front ends more have been ready."""
        assert self.process.stdout is not None
        for _ in range(times):
            assert self.process.stdout.readline() == "ready\n"

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)

    def log(self) -> list[dict[str, Any]]:
        """The log, once the service has ended."""
        assert self.process.stderr is not None
        return [json.loads(line) for line in self.process.stderr if line.startswith("{")]


def heed_hangups() -> None:
    """As in a terminal, though this test may run under `nohup`."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@contextmanager
def supervised(folder: Path, *lives: str, **limits: float) -> Iterator[Service]:
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "tests.service.cli.front_end",
            str(folder),
            json.dumps({**QUICK, **limits}),
            *lives,
        ],
        cwd=REPOSITORY_DIR,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_hangups,
    )
    with process:
        try:
            assert process.stdout is not None
            yield Service(process, folder, int(process.stdout.readline()))
        finally:
            process.kill()


def events(log: list[dict[str, Any]]) -> list[str]:
    return [line["event"] for line in log]


@pytest.mark.parametrize("life", ["hang", pytest.param("spin", marks=pytest.mark.slow)])
def test_a_silent_front_end_is_replaced_and_the_log_shows_where_it_hangs(
    tmp_path: Path, life: str
) -> None:
    with supervised(tmp_path, life, "serve") as service:
        service.wait_ready(2)
        assert service.end() == 0
        log = service.log()
    first, second = service.front_ends()
    assert events(log) == ["front_end_hung", "front_end_died"]
    assert log[0]["pid"] == log[1]["pid"] == first != second
    assert f"in {life}_for_ever" in log[0]["stacks"]
    assert "SIGKILL" in log[1]["message"]
    assert service.restarts() == [0, 1]


@pytest.mark.parametrize("life", ["block 1", pytest.param("late 4", marks=pytest.mark.slow)])
def test_silence_below_the_limit_replaces_nothing(tmp_path: Path, life: str) -> None:
    """The second starts slowly, which the limit on silence is not about."""
    with supervised(tmp_path, life) as service:
        service.wait_ready()
        time.sleep(3.5)
        assert service.end() == 0
        assert service.log() == []
    assert len(service.front_ends()) == 1


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="needs Linux's scheduler")
def test_a_front_end_that_other_programs_keep_from_a_core_is_not_replaced(tmp_path: Path) -> None:
    with supervised(tmp_path, "starve 5") as service:
        service.wait_ready()
        time.sleep(6)
        service.process.kill()  # its front end would end late, for want of a core
        assert service.log() == []
    assert len(service.front_ends()) == 1


@pytest.mark.slow
def test_a_replacement_has_a_limited_time_to_start(tmp_path: Path) -> None:
    with supervised(tmp_path, "exit 1", "late 100", "serve", start_s=1.0) as service:
        service.wait_ready(2)
        assert service.end() == 0
        assert events(service.log()) == ["front_end_died", "front_end_hung", "front_end_died"]


def test_a_front_end_that_is_stopped_is_replaced(tmp_path: Path) -> None:
    with supervised(tmp_path, "serve", "serve") as service:
        service.wait_ready()
        os.kill(service.front_ends()[0], signal.SIGSTOP)
        service.wait_ready()
        assert service.end() == 0


@pytest.mark.slow
def test_time_while_the_supervisor_is_stopped_is_not_counted_as_silence(tmp_path: Path) -> None:
    """As a container that is frozen whole, or a machine that sleeps."""
    with supervised(tmp_path, "serve") as service:
        service.wait_ready()
        (front_end,) = service.front_ends()
        for pid in (front_end, service.process.pid):
            os.kill(pid, signal.SIGSTOP)
        time.sleep(4)
        for pid in (service.process.pid, front_end):
            os.kill(pid, signal.SIGCONT)
        time.sleep(0.5)
        assert service.end() == 0
        assert service.log() == []


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (signal.SIGKILL, "SIGKILL"),
        pytest.param(signal.SIGSEGV, "SIGSEGV", marks=pytest.mark.slow),
        (signal.SIGRTMIN + 3, f"signal {signal.SIGRTMIN + 3}"),  # has no name
    ],
)
def test_a_front_end_that_is_ended_by_a_signal_is_replaced(
    tmp_path: Path, number: int, name: str
) -> None:
    with supervised(tmp_path, "serve", "serve") as service:
        service.wait_ready()
        os.kill(service.front_ends()[0], number)
        service.wait_ready()
        assert service.end() == 0
        (line,) = service.log()
    assert (line["event"], line["failures"]) == ("front_end_died", 1)
    assert f"killed by {name}" in line["message"]


@pytest.mark.parametrize(
    ("life", "status"), [("fail 1", 1), ("unready 2", 2), ("unready 0", 0), ("exit 0", 0)]
)
def test_a_first_start_that_fails_ends_the_service_with_its_status(
    tmp_path: Path, life: str, status: int
) -> None:
    with supervised(tmp_path, life) as service:
        assert service.process.wait(60) == status
        assert service.log() == []


def test_replacements_that_never_get_ready_end_the_service_after_some_tries(
    tmp_path: Path,
) -> None:
    lives = ["exit 1", *["fail 1", "unready 2"] * MAX_FAILED_STARTS]
    with supervised(tmp_path, *lives) as service:
        assert service.process.wait(60) == 2 - MAX_FAILED_STARTS % 2  # of the last
    assert len(service.front_ends()) == 1 + MAX_FAILED_STARTS


def test_a_front_end_that_becomes_ready_at_the_last_try_is_kept(tmp_path: Path) -> None:
    lives = ["exit 1", *["fail 1"] * (MAX_FAILED_STARTS - 1), "serve"]
    with supervised(tmp_path, *lives) as service:
        service.wait_ready(2)
        assert service.end() == 0


@pytest.mark.parametrize(("steady_s", "failures"), [(60.0, [1, 2, 3]), (0.0, [1, 1, 1])])
def test_the_wait_doubles_until_a_front_end_was_steady(
    tmp_path: Path, steady_s: float, failures: list[int]
) -> None:
    with supervised(tmp_path, *["exit 1"] * 3, "serve", steady_s=steady_s) as service:
        service.wait_ready(4)
        assert service.end() == 0
        log = service.log()
    assert [line["failures"] for line in log] == failures


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backoff_s", "longest_s", "least_s", "most_s"),
    [(1.0, 30.0, 3.0, 90.0), (60.0, 0.1, 0.0, 50.0)],
)
def test_the_wait_is_bounded(
    tmp_path: Path, backoff_s: float, longest_s: float, least_s: float, most_s: float
) -> None:
    limits = {"backoff_s": backoff_s, "max_backoff_s": longest_s}
    with supervised(tmp_path, "exit 1", "exit 1", "serve", **limits) as service:
        service.wait_ready()
        started = time.monotonic()
        service.wait_ready(2)
        waited_s = time.monotonic() - started
        assert service.end() == 0
    assert least_s <= waited_s < most_s


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_service_ends_with_its_front_end_in_order(
    tmp_path: Path, number: signal.Signals
) -> None:
    with supervised(tmp_path, "serve") as service:
        service.wait_ready()
        assert service.end(number) == 0
        assert service.process.stdout is not None
        assert service.process.stdout.read() == f"{number.name}\n"


def test_a_signal_that_ends_nothing_reaches_the_front_end_once(tmp_path: Path) -> None:
    """Sent to both, as to a control group."""
    with supervised(tmp_path, "serve") as service:
        service.wait_ready()
        for pid in (service.process.pid, *service.front_ends()):
            os.kill(pid, signal.SIGHUP)
            os.kill(pid, signal.SIGUSR1)
        assert service.process.stdout is not None
        said = [service.process.stdout.readline() for _ in range(2)]
        time.sleep(0.5)  # for a second time
        assert service.end() == 0
        assert sorted(said) == ["SIGHUP\n", "SIGUSR1\n"]
        assert service.process.stdout.read() == "SIGTERM\n"


def test_sigterm_ends_a_front_end_that_hangs(tmp_path: Path) -> None:
    with supervised(tmp_path, "hang", "serve") as service:
        service.wait_ready()
        assert service.end() == 1
        assert events(service.log()) == ["front_end_hung"]
    assert len(service.front_ends()) == 1
    assert not psutil.pid_exists(service.front_ends()[0])


@pytest.mark.parametrize(
    ("seconds", "status"), [("1", 0), pytest.param("100", 1, marks=pytest.mark.slow)]
)
def test_a_front_end_that_does_not_stop_is_killed(
    tmp_path: Path, seconds: str, status: int
) -> None:
    with supervised(tmp_path, f"close {seconds}") as service:
        service.wait_ready()
        assert service.end() == status


def test_sigterm_ends_a_start_at_once(tmp_path: Path) -> None:
    with supervised(tmp_path, "late 100") as service:
        while not service.front_ends():
            time.sleep(0.01)
        assert service.end() == 128 + signal.SIGTERM
        assert not psutil.pid_exists(service.front_ends()[0])


def test_sigterm_ends_the_wait_for_a_replacement(tmp_path: Path) -> None:
    with supervised(tmp_path, "exit 1", backoff_s=30.0) as service:
        service.wait_ready()
        assert service.process.stderr is not None
        assert "front_end_died" in service.process.stderr.readline()
        assert service.end() == 0


@pytest.mark.parametrize("is_hung", [True, False])
def test_a_front_end_ends_with_its_supervisor(tmp_path: Path, is_hung: bool) -> None:
    with supervised(tmp_path, "hang" if is_hung else "serve") as service:
        service.wait_ready()
        front_end = psutil.Process(service.front_ends()[0])
        service.process.kill()
        service.process.wait()
        assert psutil.wait_procs([front_end], timeout=60)[1] == []


def test_the_port_stays_open_while_a_front_end_is_replaced_and_closes_at_the_end(
    tmp_path: Path,
) -> None:
    with supervised(tmp_path, "exit 1", "serve", backoff_s=2.0) as service:
        service.wait_ready()
        with socket.create_connection(("127.0.0.1", service.port), timeout=60):
            service.wait_ready()
        assert service.end() == 0
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", service.port), timeout=60)


def test_the_supervisor_is_small() -> None:
    program = (
        "import sys, upscaled.cli, upscaled.cli.serve, psutil, threading\n"
        "heavy = {'torch', 'numpy', 'fastapi', 'uvicorn', 'sqlalchemy', 'asyncio'}\n"
        "print(sorted(heavy & set(sys.modules)), threading.active_count())\n"
        "print(psutil.Process().num_threads(), psutil.Process().memory_info().rss)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    modules, numbers = ended.stdout.splitlines()
    assert modules == "[] 1"
    threads, rss_bytes = map(int, numbers.split())
    assert threads == 1
    assert rss_bytes < 50 * 2**20
