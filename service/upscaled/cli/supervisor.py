"""Supervisor of the front end: it passes signals on, and replaces a front end that hangs.

The front end is forked: nothing is imported twice, and the socket never closes, so connections wait
for the next front end, which gives back what a dead one had on hold. The supervisor imports no web
framework and no library that starts threads.
"""

import faulthandler
import gc
import logging
import math
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from upscaled.cli.supervisor_link import BEAT, BEAT_EVERY_S, READ_BYTES, READY, SupervisorLink
from upscaled.logs import event
from upscaled.process.confinement import die_with
from upscaled.process.supervision import Activity, Limits, describe_exit, read_activity

DUMP_S: Final = 1.0
"""Longest that a hung front end may take to write its stacks; they come within milliseconds."""
LIMITS: Final = Limits(work_s=math.inf, silence_s=10, steady_s=60)
"""Ten heartbeats may fail, for a machine that swaps; clients wait for 60 s and more. A start has as
long as a worker's; until one front end was ready it has no limit, for it may have a large database
to migrate. After a steady uptime the count of failures in a row starts again."""
MAX_FAILED_STARTS: Final = 3
"""After so many replacements in a row that never got ready the service ends, for systemd or Docker
to decide: until then connections wait, and are not refused."""

ENDING_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

_DUMP_SIGNAL: Final = signal.SIGQUIT

_log: Final = logging.getLogger(__name__)


@dataclass(slots=True)
class _FrontEnd:
    """Front end as its supervisor sees it.

    silent_s: seconds since it last wrote anything, but for those in which it waited for a core.
    """

    pid: int
    beats_fd: int
    signals_fd: int
    lifeline: int
    started_at: float
    silent_s: float = 0.0
    activity: Activity | None = None
    has_beaten: bool = False
    is_ready: bool = False
    is_killed: bool = False


class FrontEndSupervisor:
    """Supervisor of one front end at a time; it decides when the next is started, if at all."""

    def __init__(
        self,
        listener: socket.socket,
        survived: Sequence[signal.Signals] = (),
        limits: Limits | None = None,
    ) -> None:
        """Prepare front ends that accept on a listening socket, each after the end of the last.

        survived: signals that are passed on beside those that end the service. limits: of a front
        end's silence and start, and the backoff.
        """
        self._listener = listener
        self._limits = limits or LIMITS
        self._passed_on = (*ENDING_SIGNALS, *survived)
        self._ending = {*ENDING_SIGNALS}
        if signal.SIGHUP in survived and sys.stderr.isatty():  # the terminal of the start closes
            self._ending.add(signal.SIGHUP)
        self._ended_by: signal.Signals | None = None
        self._was_ready = False  # any front end so far
        self._failures = 0
        self._failed_starts = 0
        self._restarts = 0
        self._selector = selectors.DefaultSelector()
        self._arrived_fd, self._wakeup_fd = os.pipe()
        for descriptor in (self._arrived_fd, self._wakeup_fd):
            os.set_blocking(descriptor, False)
        self._selector.register(self._arrived_fd, selectors.EVENT_READ)
        signal.set_wakeup_fd(self._wakeup_fd, warn_on_full_buffer=False)
        for number in self._passed_on:
            signal.signal(number, _leave_to_wakeup_fd)

    def run(self) -> SupervisorLink:
        """Fork front ends, each after the end of the last, until the service is to end.

        Returns:
            In a front end only: its link to the supervisor, which has stayed behind in this call.

        Raises:
            SystemExit: in the supervisor, once the service has ended: with the status of its front
                end, or 1 for one that had to be killed.
        """
        while True:
            started = self._fork()
            if isinstance(started, SupervisorLink):
                return started
            status = self._watch(started)
            self._was_ready |= started.is_ready
            self._decide(started, status)
            self._wait_before_next()

    def _fork(self) -> "_FrontEnd | SupervisorLink":
        beats_fd, front_beats_fd = os.pipe()
        front_signals_fd, signals_fd = os.pipe()
        front_lifeline, lifeline = os.pipe()
        for descriptor in (beats_fd, front_beats_fd, signals_fd):
            os.set_blocking(descriptor, False)
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
        gc.collect()
        gc.freeze()  # a collection in either process would unshare the memory of both
        pid = os.fork()
        if pid:
            for descriptor in (front_beats_fd, front_signals_fd, front_lifeline):
                os.close(descriptor)
            self._selector.register(beats_fd, selectors.EVENT_READ)
            return _FrontEnd(pid, beats_fd, signals_fd, lifeline, time.monotonic())
        for descriptor in (beats_fd, signals_fd, lifeline):
            os.close(descriptor)
        self._init_front_end(front_beats_fd)
        die_with(front_lifeline)
        return SupervisorLink(front_beats_fd, front_signals_fd, self._ending, self._restarts)

    def _init_front_end(self, dump_fd: int) -> None:
        """Drop in the new front end the signals and descriptors that only the supervisor uses."""
        signal.set_wakeup_fd(-1)
        for number in self._passed_on:  # sent to a control group they reach this process too
            signal.signal(number, signal.SIG_IGN)
        self._selector.close()
        os.close(self._arrived_fd)
        os.close(self._wakeup_fd)
        os.setsid()  # a Ctrl-C is for the supervisor
        faulthandler.register(_DUMP_SIGNAL, dump_fd, all_threads=True)

    def _watch(self, front_end: _FrontEnd) -> int:
        """Wait for the end of a front end, kill one that hangs, and return its status as Popen."""
        looked_at = time.monotonic()
        while True:
            for key, _ in self._selector.select(BEAT_EVERY_S):
                if key.fd == self._arrived_fd:
                    self._pass_on_signals(front_end)
                elif not self._read_beats(front_end):
                    return self._reap(front_end)
            now = time.monotonic()
            if not _is_starved(front_end):
                # While this process was frozen or stopped, so may have been the front end.
                front_end.silent_s += min(now - looked_at, BEAT_EVERY_S)
            looked_at = now
            if not front_end.is_killed and front_end.silent_s >= self._silence_limit_s(front_end):
                self._end_hung(front_end)

    def _read_beats(self, front_end: _FrontEnd) -> bool:
        """Record what a front end wrote, and return False once it has ended."""
        said = os.read(front_end.beats_fd, READ_BYTES)
        if BEAT in said:
            front_end.has_beaten = True
            front_end.silent_s = 0.0
        front_end.is_ready |= READY in said
        return bool(said)

    def _silence_limit_s(self, front_end: _FrontEnd) -> float:
        if front_end.has_beaten:
            return self._limits.silence_s
        return self._limits.start_s if self._was_ready else math.inf

    def _pass_on_signals(self, front_end: _FrontEnd) -> None:
        for number in self._read_signals():
            with suppress(BlockingIOError, BrokenPipeError):
                os.write(front_end.signals_fd, bytes([number]))
        if self._ended_by is not None and not front_end.has_beaten:
            _kill(front_end)  # nothing is under way, and nothing would read the signal

    def _read_signals(self) -> bytes:
        """Return the numbers of the signals that arrived.

        After one that ends the service this process no longer holds the socket, which the front end
        is about to close.
        """
        numbers = os.read(self._arrived_fd, READ_BYTES)
        for number in numbers:
            if number in self._ending and self._ended_by is None:
                self._ended_by = signal.Signals(number)
                self._listener.close()
        return numbers

    def _end_hung(self, front_end: _FrontEnd) -> None:
        with suppress(ProcessLookupError):
            os.kill(front_end.pid, _DUMP_SIGNAL)
        stacks = _read_dump(front_end.beats_fd)
        fields = event("front_end_hung", pid=front_end.pid, stacks=stacks)
        _log.error(
            "the front end's event loop was silent for %.0f s, killed",
            front_end.silent_s,
            extra=fields,
        )
        _kill(front_end)

    def _reap(self, front_end: _FrontEnd) -> int:
        self._selector.unregister(front_end.beats_fd)
        for descriptor in (front_end.beats_fd, front_end.signals_fd, front_end.lifeline):
            os.close(descriptor)
        return os.waitstatus_to_exitcode(os.waitpid(front_end.pid, 0)[1])

    def _decide(self, front_end: _FrontEnd, status: int) -> None:
        """Return where a replacement is wanted, end the process where none is.

        The status of a front end that was never ready is the service's; of later ones it is
        believed only after a few tries.
        """
        if self._ended_by is not None:
            # Before its first heartbeat it was killed: the status is what a shell makes of that.
            ended = status if status >= 0 else 1
            raise SystemExit(ended if front_end.has_beaten else 128 + self._ended_by)
        if status == 0 or not (self._was_ready or front_end.is_killed):
            raise SystemExit(status if status >= 0 else 128 - status)
        uptime_s = time.monotonic() - front_end.started_at
        is_steady = front_end.is_ready and uptime_s >= self._limits.steady_s
        self._failures = 1 if is_steady else self._failures + 1
        self._failed_starts = 0 if front_end.is_ready else self._failed_starts + 1
        if self._failed_starts >= MAX_FAILED_STARTS:
            raise SystemExit(max(1, status))
        self._restarts += 1
        fields = event("front_end_died", pid=front_end.pid, failures=self._failures)
        _log.error("the front end ended (%s) and is replaced", describe_exit(status), extra=fields)

    def _wait_before_next(self) -> None:
        """Wait longer after each failed start, unless a signal ends the service meanwhile."""
        until = time.monotonic() + self._limits.restart_after_s(self._failures)
        while (left_s := until - time.monotonic()) > 0:
            if self._selector.select(left_s):
                self._read_signals()
            if self._ended_by is not None:
                raise SystemExit(0)  # nothing is under way


def _is_starved(front_end: _FrontEnd) -> bool:
    """Return whether other programs of the machine have kept it from a core since the last call."""
    before, front_end.activity = front_end.activity, read_activity(front_end.pid)
    return front_end.activity is not None and front_end.activity.is_starved_since(before)


def _leave_to_wakeup_fd(_number: int, _frame: object) -> None:
    """Do nothing: the loop of `_watch` reads the signal's number from a pipe."""


def _read_dump(beats_fd: int) -> str:
    """Read what a hung front end writes of its threads, until it pauses or `DUMP_S` are over."""
    dump = bytearray()
    deadline = time.monotonic() + DUMP_S
    with selectors.DefaultSelector() as selector:
        selector.register(beats_fd, selectors.EVENT_READ)
        while (left_s := deadline - time.monotonic()) > 0:
            if not selector.select(min(left_s, 0.2) if dump else left_s):
                break
            part = os.read(beats_fd, READ_BYTES)
            if not part:
                break
            dump += part
    return dump.translate(None, BEAT + READY).decode(errors="replace").strip()


def _kill(front_end: _FrontEnd) -> None:
    front_end.is_killed = True
    with suppress(ProcessLookupError):
        os.kill(front_end.pid, signal.SIGKILL)
