"""A decoder: the process that reads files nobody vouches for, one after the other.

Started by a worker as `python -m upscaled.decoder.child --fd N --lifeline N --formats JPEG,PNG`.
It holds no key, no model and no connection, loads no torch, and tells pixels or a refusal. It dies
of whatever it cannot do, and with its worker.
"""

import argparse
import errno
import fcntl
import os
import resource
import select
import signal
import socket
import sys
import warnings
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from upscaled.decoder.limits import (
    NO_ROOM_STATUS,
    constrain,
    limits_of,
    measure_address_space,
    stop_clocks,
)
from upscaled.decoder.messages import pack
from upscaled.decoder.wire import receive_source, send_reply
from upscaled.errors import MalformedImage, ServiceError
from upscaled.image.decode import decode
from upscaled.image.formats.table import FORMATS
from upscaled.image.header import read_header
from upscaled.image.types import Image
from upscaled.logs import configure_logging, log_what_nobody_catches
from upscaled.process.shared_memory import can_seal, write_memory
from upscaled.process.stderr import Complaints

OOM_SCORE_ADJ = 900
"""Where memory ends, the kernel ends a decoder before a worker."""
_MAX_OPEN_FILES = 32
# Of shared memory or of the disk that stands in for it. A limit of the file's own is EFBIG.
_NO_ROOM_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.ENOMEM})
# They may reach a whole control group; the front end decides what ends.
_IGNORED_SIGNALS = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
)


def main() -> None:
    """Decode until the worker closes the socket."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--fd", type=int, required=True, help="this end of the socket pair")
    parser.add_argument("--lifeline", type=int, required=True, help="a pipe the worker holds open")
    parser.add_argument("--formats", required=True, help="what is decoded, comma-separated")
    parser.add_argument("--log-format", default="auto", help="of what is told of a fault")
    arguments = parser.parse_args()
    _die_with(arguments.lifeline)
    _give_up_rights()
    complaints = _silence_libraries(arguments.log_format)
    formats = frozenset(arguments.formats.split(","))
    sock = socket.socket(fileno=arguments.fd)
    idle_bytes = measure_address_space()
    while (source := receive_source(sock)) is not None:
        _answer(sock, source, formats, idle_bytes, complaints)
        del source


def _die_with(lifeline: int) -> None:
    """Have the kernel end this process once nobody holds the other end of the pipe any more.

    A signal does it, also while the process hangs in C code.
    """
    for ignored in _IGNORED_SIGNALS:
        signal.signal(ignored, signal.SIG_IGN)
    for ending in (signal.SIGIO, signal.SIGPROF, signal.SIGALRM):
        signal.signal(ending, signal.SIG_DFL)
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    flags = fcntl.fcntl(lifeline, fcntl.F_GETFL)
    fcntl.fcntl(lifeline, fcntl.F_SETFL, flags | os.O_ASYNC)
    if select.select([lifeline], [], [], 0)[0]:  # it went before we listened
        os._exit(0)


def _give_up_rights() -> None:
    """No core files (they hold pictures), few descriptors, the first to go when memory ends."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_MAX_OPEN_FILES, _MAX_OPEN_FILES))
    with suppress(OSError):  # a sandbox may hide the file
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE_ADJ))


def _silence_libraries(log_format: str) -> Complaints:
    """A fault of ours alone is still shown to the world, as one line of the log."""
    sys.stderr = os.fdopen(os.dup(2), "w")
    configure_logging("error", log_format)
    log_what_nobody_catches()
    warnings.simplefilter("ignore")
    return Complaints()


def _answer(
    sock: socket.socket,
    source: bytes,
    formats: Collection[str],
    idle_bytes: int | None,
    complaints: Complaints,
) -> None:
    complaints.take()
    try:
        constrain(limits_of(len(source)), idle_bytes)
        header = read_header(source, formats)
        pixels = header.decoded_pixels or header.width_px * header.height_px
        constrain(limits_of(len(source), pixels), idle_bytes)
        image = decode(source, header)
        reports_damage = FORMATS[header.format].reports_damage_on_stderr
        if reports_damage and (text := complaints.take()):
            raise MalformedImage(detail=f"{header.format} pixels: {text}")
        stop_clocks()
    except ServiceError as error:
        stop_clocks()
        send_reply(sock, {"refused": error.error_code, "detail": error.detail[:1000]})
        return
    _send(sock, image)


def _send(sock: socket.socket, image: Image) -> None:
    facts, parts = pack(image)
    try:
        fd = write_memory(parts, is_sealed=can_seal())
    except OSError as error:
        if error.errno in _NO_ROOM_ERRORS:
            os._exit(NO_ROOM_STATUS)
        raise
    try:
        send_reply(sock, facts, fd)
    finally:
        os.close(fd)


if __name__ == "__main__":
    main()
