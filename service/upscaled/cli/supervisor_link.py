"""Link of a front end to its supervisor: heartbeats one way, signals the other.

    supervisor                                    front end
    holds the listening socket               ->   accepts connections on it
    a signal's number, one byte for each     ->   ends in order, or logs the signal
                                             <-   BEAT every second from its event loop, READY once
    SIGQUIT once it has been silent too long ->   the stacks of all its threads, in words

It imports no web framework, as the supervisor does not.
"""

import os
import signal
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

BEAT: Final = b"\x01"
READY: Final = b"\x02"
BEAT_EVERY_S: Final = 1.0
READ_BYTES: Final = 64 * 1024


class SupervisorLink:
    def __init__(
        self, beats_fd: int, signals_fd: int, ending: Collection[signal.Signals], restarts: int
    ) -> None:
        """Link by pipes: heartbeats go to `beats_fd`, numbers of signals come from `signals_fd`.

        ending: the signals that end the service; the others are only logged. restarts: front ends
        of this service that were replaced so far.
        """
        self.ending = frozenset(ending)
        self.restarts = restarts
        self._beats_fd = beats_fd
        self._signals_fd = signals_fd

    def start(self, loop: "AbstractEventLoop", on_signal: Callable[[signal.Signals], None]) -> None:
        """Start to send heartbeats from this event loop, and call `on_signal` for each signal."""

        def read_signals() -> None:
            numbers = os.read(self._signals_fd, READ_BYTES)
            if not numbers:  # where the kernel does not end this process with its parent
                os._exit(1)
            for number in numbers:
                on_signal(signal.Signals(number))

        loop.add_reader(self._signals_fd, read_signals)
        self._send_heartbeat(loop)

    def announce_ready(self) -> None:
        """Report ready: from now on the supervisor replaces this process when it ends."""
        self._write(READY)

    def _send_heartbeat(self, loop: "AbstractEventLoop") -> None:
        self._write(BEAT)
        loop.call_later(BEAT_EVERY_S, self._send_heartbeat, loop)

    def _write(self, message: bytes) -> None:
        # A supervisor that is stopped leaves the pipe full; one that is gone is noticed below.
        with suppress(BlockingIOError, BrokenPipeError):
            os.write(self._beats_fd, message)
