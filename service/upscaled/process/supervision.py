"""Detect child processes that hang, describe how one ended, and back off before the next start."""

import select
import signal
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SILENCE_S: Final = 15.0
"""Limits how long a process may send nothing and use no processor time: far longer than a machine
that is short of cores or memory keeps a healthy process from running."""

_STEP_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Time limits of a supervised child process, and the backoff between its starts.

    work_s: one piece of work in one process; then the process is killed.
    start_s: from starting the process until it says that it is ready.
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
    continued. But its processor time stands still, which is measured.

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
        self._cpu_ticks = read_cpu_ticks(pid)
        self._silent_s = 0.0

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
        cpu_ticks = read_cpu_ticks(self._pid)
        is_silent = cpu_ticks is not None and cpu_ticks == self._cpu_ticks
        self._cpu_ticks = cpu_ticks
        self._silent_s = self._silent_s + step_s if is_silent else 0.0
        if self._silent_s >= self._silence_s:
            raise ProcessHangs


def read_cpu_ticks(pid: int) -> int | None:
    """Return the processor time of a process in clock ticks: utime + stime of proc_pid_stat(5).

    None where there is no /proc: a hanging process then ends by its deadline only.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    # The second field is the program's name in brackets, which may hold blanks and brackets.
    fields = text[text.rindex(b")") + 2 :].split()
    return int(fields[11]) + int(fields[12])
