"""The worker's side of one decoder process: start it, hand it files, end it."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from functools import partial

from upscaled.decoder.limits import NO_ROOM_STATUS, is_ended_by_its_file
from upscaled.decoder.messages import unpack
from upscaled.decoder.wire import Facts, WireError, receive_reply, send_source
from upscaled.errors import (
    MalformedImage,
    ResolutionTooHigh,
    ServiceError,
    UnsupportedImageFormat,
)
from upscaled.image.types import Image
from upscaled.process.shared_memory import read_memory
from upscaled.process.watchdog import SILENCE_S, ProcessHangs, Watch

DECODER_COMMAND = (sys.executable, "-m", "upscaled.decoder.child")

# How to find Python's libraries. Nothing else of an environment concerns a decoder.
_NAMES = frozenset(
    {"PATH", "LANG", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH", "VIRTUAL_ENV"}
    | {"PYTHONDONTWRITEBYTECODE", "PYTHONWARNINGS"}
)
# Each thread of a pool would hold address space and a core, and none helps with one picture.
_ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",
}
_REFUSALS: Mapping[str, type[ServiceError]] = {
    kind.error_code: kind for kind in (MalformedImage, ResolutionTooHigh, UnsupportedImageFormat)
}
_END_S = 5.0


class DecoderDied(Exception):
    """The process ended, was ended, or broke the protocol; the text says how.

    `is_by_file`: the file did it, by a crash or by going over a limit of its own. Otherwise the
    process was killed from outside, stopped, or left without memory, and the file may be sound.
    """

    def __init__(self, text: str, *, is_by_file: bool) -> None:
        super().__init__(text)
        self.is_by_file = is_by_file


class DecoderProcess:
    """One decoder. Not for several threads at once."""

    def __init__(
        self,
        formats: Collection[str],
        command: Sequence[str] = DECODER_COMMAND,
        *,
        log_format: str = "auto",
    ) -> None:
        """
        log_format: how it tells of a fault of its own; see `upscaled.logs`.

        Raises:
            OSError: the process cannot be started.
        """
        self.files = 0
        self._sock, theirs = socket.socketpair()
        self._sock.setblocking(False)
        try:
            lifeline, self._lifeline = os.pipe()
        except BaseException:
            self._sock.close()
            theirs.close()
            raise
        try:
            arguments = ["--formats", ",".join(formats), "--log-format", log_format]
            self._process = _start([*command, *arguments], theirs.fileno(), lifeline)
        except BaseException:
            self._sock.close()
            os.close(self._lifeline)
            raise
        finally:
            theirs.close()
            os.close(lifeline)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def decode(self, source: bytes, within_s: float, silence_s: float = SILENCE_S) -> Image:
        """Decode one file. After anything else than an image or a refusal, call `end`.

        Args:
            source: the encoded file.
            within_s: seconds that it may take.
            silence_s: seconds without processor time after which the process counts as hanging.

        Raises:
            MalformedImage, ResolutionTooHigh, UnsupportedImageFormat: the file is refused.
            DecoderDied: no sensible answer within that time.
        """
        self.files += 1
        watch = Watch(self.pid, within_s=within_s, silence_s=silence_s)
        try:
            send_source(self._sock, source, watch)
            facts, fd = receive_reply(self._sock, watch)
            return _read_reply(facts, fd)
        except ProcessHangs:
            text = f"hung, no processor time for {silence_s:g} s"
            raise DecoderDied(text, is_by_file=False) from None
        except TimeoutError:  # busy all the time, and past limits that it should have died of
            raise DecoderDied(f"no answer within {within_s:g} s", is_by_file=True) from None
        except WireError as error:
            raise DecoderDied(f"broke the protocol: {error}", is_by_file=True) from error
        except (EOFError, OSError):
            raise self._death() from None

    def end(self) -> None:
        """Kill the process and wait until it is gone; may be called again."""
        self._sock.close()
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1
        self._process.kill()
        self._process.wait()

    def _death(self) -> DecoderDied:
        """How the process ended, whose other end of the socket is closed."""
        try:
            status = self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            return DecoderDied("closed its socket", is_by_file=True)
        is_by_file = is_ended_by_its_file(status)
        if status == NO_ROOM_STATUS:
            return DecoderDied("found no memory for its pixels", is_by_file=is_by_file)
        if status >= 0:
            return DecoderDied(f"ended with status {status}", is_by_file=is_by_file)
        return DecoderDied(f"ended by {_signal_name(-status)}", is_by_file=is_by_file)


def decoder_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What a decoder inherits of an environment: no key, no address, no home."""
    kept = {name: value for name, value in environment.items() if name in _NAMES}
    return {**kept, **_ONE_THREAD}


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal has no name
        return f"signal {number}"


def _start(command: Sequence[str], fd: int, lifeline: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603  (our own program)
        [*command, "--fd", str(fd), "--lifeline", str(lifeline)],
        pass_fds=(fd, lifeline),
        stdin=subprocess.DEVNULL,
        stdout=2,  # stdout may be somebody's data
        env=decoder_environment(os.environ),
    )


def _read_reply(facts: Facts, fd: int | None) -> Image:
    if fd is None:
        kind = _REFUSALS.get(str(facts.get("refused")))
        if kind is None:
            raise WireError("neither pixels nor a refusal")
        raise kind(detail=str(facts.get("detail")))
    try:
        return unpack(facts, partial(read_memory, fd))
    finally:
        os.close(fd)
