"""A process that hangs is distinguished from one that computes; restarts back off."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from upscaled.process.supervision import (
    Activity,
    Limits,
    ProcessHangs,
    TimeAllowed,
    Watchdog,
    describe_exit,
    read_activity,
)

pytestmark = pytest.mark.skipif(
    read_activity(os.getpid()) is None, reason="this system has no /proc"
)


@pytest.mark.parametrize(
    ("failures", "wait_s"), [(0, 0), (1, 0.5), (2, 1), (3, 2), (7, 30), (10_000, 30)]
)
def test_restarts_back_off_exponentially_to_the_maximum(failures: int, wait_s: float) -> None:
    assert Limits(work_s=1).restart_after_s(failures) == wait_s


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (0, "exit status 0"),
        (3, "exit status 3"),
        (-signal.SIGSEGV, "killed by SIGSEGV"),
        (-(signal.SIGRTMIN + 3), f"killed by signal {signal.SIGRTMIN + 3}"),
    ],
)
def test_an_exit_is_described_in_words(status: int, text: str) -> None:
    assert describe_exit(status) == text


@pytest.fixture
def busy() -> Iterator["subprocess.Popen[bytes]"]:
    """Start a process that computes without end, whose name makes /proc/PID/stat hard to parse."""
    program = "import ctypes; ctypes.CDLL(None).prctl(15, b') 1 2 (a b'); print(flush=True)\n"
    process = subprocess.Popen(
        [sys.executable, "-c", program + "while True: pass"], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    with process:
        yield process
        process.kill()


@pytest.fixture
def frequent_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("upscaled.process.supervision._STEP_S", 0.05)


@pytest.fixture
def quiet() -> Iterator[socket.socket]:
    """Open a socket on which no data ever arrive."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours


@pytest.mark.usefixtures("frequent_looks")
def test_a_process_that_computes_does_not_hang(
    busy: "subprocess.Popen[bytes]", quiet: socket.socket
) -> None:
    with pytest.raises(TimeoutError):
        Watchdog(busy.pid, within_s=0.8, silence_s=0.5).wait_readable(quiet)


def test_a_process_that_is_stopped_hangs(
    busy: "subprocess.Popen[bytes]", quiet: socket.socket
) -> None:
    busy.send_signal(signal.SIGSTOP)
    with pytest.raises(ProcessHangs):
        Watchdog(busy.pid, within_s=60, silence_s=0.2).wait_readable(quiet)


@pytest.mark.usefixtures("frequent_looks")
def test_a_process_that_waits_for_a_core_does_not_hang(
    busy: "subprocess.Popen[bytes]", quiet: socket.socket
) -> None:
    core = min(os.sched_getaffinity(0))
    os.sched_setscheduler(busy.pid, os.SCHED_IDLE, os.sched_param(0))
    os.sched_setaffinity(busy.pid, {core})
    first = subprocess.Popen(
        [sys.executable, "-c", f"import os; os.sched_setaffinity(0, {{{core}}})\nwhile True: pass"]
    )
    with first:
        try:
            with pytest.raises(TimeoutError):
                Watchdog(busy.pid, within_s=0.8, silence_s=0.1).wait_readable(quiet)
        finally:
            first.kill()


def test_a_process_is_runnable_whose_main_thread_waits_for_one_that_computes() -> None:
    """As where a decoder's library has threads of its own, such as AVIF's."""
    program = "import threading, time\nthreading.Thread(target=lambda: [0 for _ in iter(int, 1)])"
    with subprocess.Popen([sys.executable, "-c", f"{program}.start()\ntime.sleep(600)"]) as process:
        try:
            samples: list[Activity] = []
            while not samples or samples[-1].cpu_ticks < 30:
                time.sleep(0.1)
                activity = read_activity(process.pid)
                assert activity is not None
                samples.append(activity)
            assert samples[-1].is_runnable
        finally:
            process.kill()


@pytest.mark.slow
@pytest.mark.usefixtures("frequent_looks")
def test_the_processor_time_of_a_process_is_measured(
    busy: "subprocess.Popen[bytes]", quiet: socket.socket
) -> None:
    watchdog = Watchdog(busy.pid, within_s=0.5)
    with pytest.raises(TimeoutError):
        watchdog.wait_readable(quiet)
    assert watchdog.computed_s is not None
    assert 0 < watchdog.computed_s <= 0.6


def test_processor_time_begins_the_count_anew(
    busy: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch, quiet: socket.socket
) -> None:
    ticks = iter([1, 1, 1, 2, 2, 2, 2, 2])
    monkeypatch.setattr(
        "upscaled.process.supervision.read_activity",
        lambda _: Activity(next(ticks), is_runnable=False),
    )
    monkeypatch.setattr("upscaled.process.supervision._STEP_S", 0.01)
    with pytest.raises(ProcessHangs):
        Watchdog(1, within_s=60, silence_s=0.03).wait_readable(quiet)
    assert list(ticks) == [2]  # two silent looks, one busy one, three silent ones


def test_without_proc_only_the_deadline_ends_the_wait(
    monkeypatch: pytest.MonkeyPatch, quiet: socket.socket
) -> None:
    monkeypatch.setattr("upscaled.process.supervision.read_activity", lambda _: None)
    with pytest.raises(TimeoutError):
        Watchdog(1, within_s=0.3, silence_s=0.05).wait_readable(quiet)


def test_waiting_ends_as_soon_as_data_arrive(quiet: socket.socket) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.send(b"x")
        begun_s = time.monotonic()
        Watchdog(os.getpid(), within_s=60).wait_readable(ours)
        Watchdog(os.getpid(), within_s=60).wait_writable(ours)
        assert time.monotonic() - begun_s < 30


@pytest.mark.parametrize(
    ("before", "is_starved"),
    [(None, False), (Activity(6, is_runnable=True), False), (Activity(7, is_runnable=False), True)],
)
def test_a_process_is_starved_that_is_runnable_and_has_not_computed(
    before: Activity | None, is_starved: bool
) -> None:
    assert Activity(7, is_runnable=True).is_starved_since(before) is is_starved
    assert not Activity(7, is_runnable=False).is_starved_since(before)


@pytest.mark.parametrize(
    ("cpu_ticks", "is_runnable", "left_s"),
    [(0, True, 10.0), (5, True, 9.95), (500, True, 9.0), (0, False, 9.0), (50, False, 9.0)],
    ids=["has no core", "has little", "computes in threads", "waits", "waits again"],
)
def test_a_process_that_waits_for_a_core_uses_up_none_of_its_time(
    monkeypatch: pytest.MonkeyPatch, cpu_ticks: int, is_runnable: bool, left_s: float
) -> None:
    monkeypatch.setattr(os, "sysconf", lambda _: 100)
    seen = iter([Activity(7, True), Activity(7 + cpu_ticks, is_runnable)])
    monkeypatch.setattr("upscaled.process.supervision.read_activity", lambda _: next(seen))
    allowed = TimeAllowed(1, 10.0)
    allowed.note(1.0)
    assert allowed.left_s == pytest.approx(left_s)
