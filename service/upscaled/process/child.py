"""Start a child process on one end of a socket pair, and talk with it.

`Child` is for threads, `AsyncChild` for the event loop. Both start the command with `--fd N
--lifeline M` behind it: N is the child's end of the socket pair, and M the reading end of a pipe
that closes when the parent is gone, however it ends (`upscaled.process.confinement.die_with`).
"""

import asyncio
import errno
import logging
import os
import signal
import socket
import subprocess
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import IO, Any, Final, Self

from upscaled.logs import event
from upscaled.process import channel
from upscaled.process.channel import Frame
from upscaled.process.supervision import describe_exit

_STDERR: Final = 2

_LIBRARIES: Final = frozenset(
    {"PATH", "LANG", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH", "VIRTUAL_ENV"}
    | {"PYTHONDONTWRITEBYTECODE", "PYTHONWARNINGS", "GLIBC_TUNABLES"}
)
"""Variables that every child inherits: those by which a Python process finds its libraries, and
`GLIBC_TUNABLES`, by which the operator tunes the C library."""

_PASSING_ERRORS: Final = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE})
"""Errors of what the machine lacks only for the moment: memory, processes, file descriptors."""


KILLED_WITHIN_S: Final = 10.0
"""Limits the wait for a process that was killed: in an uninterruptible sleep, on a disk or a driver
that does not answer, it may not end for hours, and what waits for it would stand still as long."""

_log: Final = logging.getLogger(__name__)


class ChildUnusable(Exception):
    """The program cannot do its work, and a restart alone will not mend that; the text says why."""


class SpawnFailed(Exception):
    """The machine cannot start a process now, and may be able to later."""


class ChildLost(Exception):
    """The process ended, or is to be killed for its silence; the text says which."""


def scrub_environment(
    environment: Mapping[str, str], names: Collection[str] = (), prefixes: tuple[str, ...] = ()
) -> dict[str, str]:
    """Return what a child may inherit of an environment: how to find libraries, and no secret.

    names, prefixes: variables that this child needs besides, as `CUDA_`.
    """
    return {
        name: value
        for name, value in environment.items()
        if name in _LIBRARIES or name in names or (prefixes and name.startswith(prefixes))
    }


class Child:
    """Child process for threads; only one thread may use it at a time.

    sock: this end of the socket pair. It does not block: see the `watchdog` of `channel.send`.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start the process, or raise OSError."""
        with _connection(environment) as (self.sock, self._lifeline, arguments, options):
            self._process = subprocess.Popen([*command, *arguments], **options)  # noqa: S603

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def wait(self, timeout_s: float) -> int | None:
        """Return the exit status of a process that is ending; None if it runs on for so long."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def end(self) -> None:
        """Kill the process and wait until it is reaped; may be called again.

        One that does not end within `KILLED_WITHIN_S` is left behind, and reaped once it has ended.
        """
        self.sock.close()
        self._process.kill()
        if self.wait(KILLED_WITHIN_S) is None:
            _log_stuck(self.pid)
        self._lifeline.close()


class AsyncChild:
    """Child process for the event loop, made by `start`; `wait` and `close` are to follow."""

    def __init__(
        self, process: asyncio.subprocess.Process, sock: socket.socket, lifeline: IO[bytes]
    ) -> None:
        self._process = process
        self._sock = sock
        self._lifeline = lifeline
        self._sending = asyncio.Lock()

    @classmethod
    async def start(cls, command: Sequence[str], environment: Mapping[str, str]) -> Self:
        """Start the process; cancelled meanwhile, it is killed and reaped first.

        Raises:
            ChildUnusable: the program cannot be run.
            SpawnFailed: no memory, process or file descriptor is free for it.
        """
        spawning = asyncio.create_task(cls._spawn(command, environment))
        try:
            return await asyncio.shield(spawning)
        except asyncio.CancelledError:
            await asyncio.wait([spawning])
            if not spawning.exception():
                child = spawning.result()
                child.kill()
                await child.wait()
                await child.close()
            raise

    @classmethod
    async def _spawn(cls, command: Sequence[str], environment: Mapping[str, str]) -> Self:
        try:
            with _connection(environment) as (sock, lifeline, arguments, options):
                process = await asyncio.create_subprocess_exec(
                    *command,
                    *arguments,
                    **options,
                    start_new_session=True,  # a Ctrl-C is for the parent, which then ends children
                )
        except OSError as error:
            text = f"cannot start {command[0]}: {os.strerror(error.errno or 0)}"
            raise (SpawnFailed if error.errno in _PASSING_ERRORS else ChildUnusable)(text) from None
        return cls(process, sock, lifeline)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def send(self, header: bytes, payload: bytes = b"") -> None:
        """Send one frame; any number of tasks may send, each frame goes in one piece.

        Raises:
            FrameError: header or payload are over their limit.
            OSError: the process is gone.
        """
        async with self._sending:
            await channel.send_async(self._sock, header, payload)

    async def receive(
        self, *, within_s: float | None, max_payload_bytes: int = channel.MAX_PAYLOAD_BYTES
    ) -> Frame:
        """Receive the next frame; for one task only.

        within_s: None waits without a limit.

        Raises:
            ChildLost: nothing came within that time, or the process closed its end.
            FrameError: a length is over its limit.
        """
        try:
            async with asyncio.timeout(within_s):
                return await channel.receive_async(self._sock, max_payload_bytes=max_payload_bytes)
        except TimeoutError:
            raise ChildLost(f"was silent for {within_s:g} s, killed") from None
        except (EOFError, OSError):
            raise ChildLost("ended") from None

    def close_sending(self) -> None:
        """Let the process read the end of its input, by which it is to end of itself."""
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)

    def kill(self) -> None:
        """Kill the process, unless it has ended; `wait` is still to follow.

        What waits to send or receive ends now, also where the process does not end, and so keeps
        its end of the socket open; what it has sent can still be received.
        """
        # Not Process.kill: it may reap the process before asyncio does, and lose its exit status.
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    async def wait(self) -> str:
        """Wait for the end of a killed process, and return how it ended, in words.

        One that does not end within `KILLED_WITHIN_S` is left behind, and reaped once it has ended.
        `close` is still to follow, when all that wait for an answer of the process have got one.
        """
        try:
            async with asyncio.timeout(KILLED_WITHIN_S):
                return describe_exit(await self._process.wait())
        except TimeoutError:
            _log_stuck(self.pid)
            return "does not end although it was killed"
        finally:
            self._lifeline.close()

    async def close(self) -> None:
        """Close this end of the socket, once the process has ended."""
        # A task that is still sending fails now, for it was killed, or closed its end; closing this
        # end under it would leave it waiting for ever.
        async with self._sending:
            self._sock.close()


def _log_stuck(pid: int) -> None:
    text = "process %d does not end although it was killed: it is left behind and replaced"
    _log.error(text, pid, extra=event("process_stuck", pid=pid))


@contextmanager
def _connection(
    environment: Mapping[str, str],
) -> Iterator[tuple[socket.socket, IO[bytes], list[str], dict[str, Any]]]:
    """Make the parent's ends, and the arguments and options that start a child on the others.

    The child's are closed at the end of the block, the parent's if it fails.
    """
    ours, theirs = socket.socketpair()
    with ExitStack() as parents_ends, theirs:
        parents_ends.enter_context(ours)
        ours.setblocking(False)
        reading_fd, writing_fd = os.pipe()
        lifeline = parents_ends.enter_context(open(writing_fd, "wb", buffering=0))
        with open(reading_fd, "rb", buffering=0):
            arguments = ["--fd", str(theirs.fileno()), "--lifeline", str(reading_fd)]
            options = {
                "pass_fds": (theirs.fileno(), reading_fd),
                "stdin": subprocess.DEVNULL,
                "stdout": _STDERR,  # stdout may be the parent's data
                "env": dict(environment),
            }
            yield ours, lifeline, arguments, options
        parents_ends.pop_all()
