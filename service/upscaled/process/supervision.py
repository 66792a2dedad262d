"""Detect child processes that hang, describe how one ended, and back off before the next start."""

import os
import select
import signal
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SILENCE_S: Final = 15.0
"""Limits how long a process may send nothing and use no processor time, though it has not waited
for a core: far longer than a machine that is short of memory keeps it from running."""

_STEP_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Time limits of a supervised child process, and the backoff between its starts.

    work_s: one piece of work in one process; then the process is killed.
    start_s: from starting the process until it says that it is ready, see `TimeAllowed`.
    silence_s: a process that is ready and sends nothing for so long hangs, and is killed.
    end_s: from closing the process's socket to its end; then it is killed.
    backoff_s, max_backoff_s: the wait after the first failed start; it doubles with each further
        one in a row, up to the maximum.
    steady_s: a process that ran so long was no failed start, even if it did no work.
    out_s: how long a child that fails repeatedly is not started, while others do its work.
    """

    work_s: float
    start_s: float = 300
    silence_s: float = SILENCE_S
    end_s: float = 3
    backoff_s: float = 0.5
    max_backoff_s: float = 30
    steady_s: float = 10
    out_s: float = 600

    def restart_after_s(self, failures: int) -> float:
        """Return the seconds to wait before the next start after so many `failures` in a row."""
        if failures == 0:
            return 0
        return min(self.max_backoff_s, self.backoff_s * 2.0 ** min(failures - 1, 30))


def describe_exit(status: int) -> str:
    """Return how a process ended, in words; `status` as `subprocess.Popen.returncode` is."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:  # a real-time signal has no name
        return f"killed by signal {-status}"


class ProcessHangs(Exception):
    """The process used no processor time for as long as it may."""


class Watchdog:
    """Waits for a process's socket, and gives the process up when it hangs or is out of time.

    A process that is stopped (SIGSTOP, a frozen control group) or blocked for ever sends nothing,
    and none of its own clocks ends it: a pending signal reaches a stopped process only when it is
    continued. But its processor time stands still, which is measured. So does that of a process
    that waits for a core behind others of the machine: it is runnable then, and does not hang.

    Silence is counted in steps that the waiting process itself has seen pass, not by a clock: a
    machine that was asleep, or a container that was frozen whole, is not mistaken for a child that
    hangs.
    """

    def __init__(self, pid: int, *, within_s: float, silence_s: float = SILENCE_S) -> None:
        """Watch a process whose work takes at most `within_s`, however busy it is.

        silence_s: without processor time for so long it counts as hanging.
        """
        self._pid = pid
        self._deadline_s = time.monotonic() + within_s
        self._silence_s = silence_s
        self._begun = self._seen = read_activity(pid)
        self._silent_s = 0.0

    @property
    def computed_s(self) -> float | None:
        """Return the processor time of the process since the begin; None where there is no /proc.

        It is as of the last whole second of waiting.
        """
        if self._begun is None or self._seen is None:
            return None
        return (self._seen.cpu_ticks - self._begun.cpu_ticks) / os.sysconf("SC_CLK_TCK")

    def wait_readable(self, sock: socket.socket) -> None:
        """Wait until `sock` has data or its other end is closed.

        Raises:
            TimeoutError: the time for this work is over.
            ProcessHangs: the process uses no processor time.
        """
        self._wait(sock, select.POLLIN)

    def wait_writable(self, sock: socket.socket) -> None:
        """Wait until `sock` accepts data or its other end is closed; raises as `wait_readable`."""
        self._wait(sock, select.POLLOUT)

    def _wait(self, sock: socket.socket, wanted: int) -> None:
        poll = select.poll()
        poll.register(sock, wanted)
        while True:
            left_s = self._deadline_s - time.monotonic()
            if left_s <= 0:
                raise TimeoutError
            step_s = min(_STEP_S, self._silence_s, left_s)
            if poll.poll(step_s * 1000):
                return
            self._count_silence(step_s)

    def _count_silence(self, step_s: float) -> None:
        before, self._seen = self._seen, read_activity(self._pid)
        is_silent = self._seen is not None and not self._seen.is_active_since(before)
        self._silent_s = self._silent_s + step_s if is_silent else 0.0
        if self._silent_s >= self._silence_s:
            raise ProcessHangs


@dataclass(frozen=True, slots=True)
class Activity:
    """State of a process at a moment, as the kernel reports it.

    cpu_ticks: its processor time in clock ticks: utime + stime of proc_pid_stat(5).
    is_runnable: whether one of its threads runs, or waits for nothing but a core.
    """

    cpu_ticks: int
    is_runnable: bool

    def is_active_since(self, before: "Activity | None") -> bool:
        """Return whether it has computed since, or would compute now if it had a core."""
        return self.is_runnable or before is None or self.cpu_ticks != before.cpu_ticks

    def is_starved_since(self, before: "Activity | None") -> bool:
        """Return whether it would compute, and has had no core since."""
        is_idle = before is not None and self.cpu_ticks == before.cpu_ticks
        return self.is_runnable and is_idle


class TimeAllowed:
    """Time for the start of a process; while it waits for a core behind others none of it passes.

    A process that computes uses it up by its processor time, any other one by the clock.
    """

    def __init__(self, pid: int, seconds: float) -> None:
        self._pid = pid
        self._seen = read_activity(pid)
        self.left_s = seconds

    def note(self, step_s: float) -> None:
        """Note that a step has passed."""
        before, self._seen = self._seen, read_activity(self._pid)
        used_s = step_s
        if before is not None and self._seen is not None and self._seen.is_runnable:
            ticks = self._seen.cpu_ticks - before.cpu_ticks
            used_s = min(step_s, ticks / os.sysconf("SC_CLK_TCK"))
        self.left_s -= used_s


def read_activity(pid: int) -> Activity | None:
    """Return what a process does at this moment.

    None where there is no /proc: a hanging process then ends by its deadline only.
    """
    process = Path(f"/proc/{pid}")
    try:
        fields = _read_stat(process)
        states = [_read_stat(thread)[0] for thread in (process / "task").iterdir()]
    except OSError:
        return None
    return Activity(int(fields[11]) + int(fields[12]), b"R" in states)


def _read_stat(process: Path) -> list[bytes]:
    """Return the fields of a process or thread behind its name: its state is the first."""
    text = (process / "stat").read_bytes()
    # The name is in brackets, and may hold blanks and brackets itself.
    return text[text.rindex(b")") + 2 :].split()
