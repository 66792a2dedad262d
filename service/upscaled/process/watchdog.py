"""Deciding that a decoder process hangs: it has an answer to give and uses no processor time.

A process that is stopped (SIGSTOP, a frozen control group) or blocked for ever says nothing, and
none of its own clocks ends it: a pending signal reaches a stopped process only when it is
continued. What it cannot hide is that its processor time stands still.
"""

import select
import socket
import time
from pathlib import Path
from typing import Final

SILENCE_S: Final = 15.0
"""Longest that a process may use no processor time while a file waits for it: as long as a worker
process may be silent (`upscaled.process.supervision`)."""

_LOOK_EVERY_S: Final = 1.0


class ProcessHangs(Exception):
    """The process used no processor time for `silence_s` seconds."""


class Watch:
    """The time that one process has for one file, waited out in steps of a second.

    Silence is counted in steps that this process itself has seen pass, not by a clock: a machine
    that was asleep, or a container that was frozen whole, has not found a decoder hanging.
    """

    def __init__(
        self,
        pid: int,
        *,
        within_s: float,
        silence_s: float = SILENCE_S,
    ) -> None:
        """
        Args:
            pid: of the process that is watched.
            within_s: seconds until it has to be done, however busy it is.
            silence_s: seconds without processor time after which it counts as hanging.
        """
        self._pid = pid
        self._deadline_s = time.monotonic() + within_s
        self._silence_s = silence_s
        self._cpu_ticks = read_cpu_ticks(pid)
        self._silent_s = 0.0

    def wait_readable(self, sock: socket.socket) -> None:
        """Wait until `sock` has data or its other end is closed.

        Raises:
            TimeoutError: the time for this file is over.
            ProcessHangs: the process stands still.
        """
        self._wait(sock, select.POLLIN)

    def wait_writable(self, sock: socket.socket) -> None:
        """Wait until `sock` takes data or its other end is closed; raises as `wait_readable`."""
        self._wait(sock, select.POLLOUT)

    def _wait(self, sock: socket.socket, wanted: int) -> None:
        poll = select.poll()
        poll.register(sock, wanted)
        while True:
            left_s = self._deadline_s - time.monotonic()
            if left_s <= 0:
                raise TimeoutError
            step_s = min(_LOOK_EVERY_S, self._silence_s, left_s)
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
    """Processor time of a process in clock ticks (`utime` + `stime` of proc_pid_stat(5)).

    None where the system does not say: without /proc a hanging process ends by its deadline only.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    # The second field is the program's name in brackets, which may hold blanks and brackets.
    fields = text[text.rindex(b")") + 2 :].split()
    return int(fields[11]) + int(fields[12])
