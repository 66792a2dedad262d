"""Decoder process: decodes untrusted files, one after the other.

Started by a worker as `python -m upscaled.decoder.child --fd N --lifeline N --formats JPEG,PNG`. It
holds no key, no model and no connection, loads no torch, and answers with pixels or a refusal. It
ends on any other error, and when its worker ends.

The kernel enforces all limits of a file, since a decoder that hangs in C code runs no Python. A
process that goes over its time is ended by a signal; one that allocates too much gets no memory.
"""

import errno
import json
import os
import resource
import signal
import socket
import sys
import warnings
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import numpy as np

from upscaled.errors import MalformedImage, ServiceError
from upscaled.image.colour import MAX_PROFILE_BYTES
from upscaled.image.decode import decode
from upscaled.image.formats.table import FORMATS, read_header
from upscaled.image.formats.tiff import printed_damage
from upscaled.image.types import Image, MetadataPlan
from upscaled.logs import configure_logging, log_uncaught_exceptions
from upscaled.process import confinement
from upscaled.process.channel import Frame, can_seal, receive, send, write_memory

_MAX_OPEN_FILES: Final = 32

_MAX_DETAIL_CHARACTERS: Final = 1000

_NO_MEMORY_ERRORS: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.ENOMEM})
"""Shared memory, or the disk that stands in for it, is full. A limit of the file's own is EFBIG."""

MIB: Final = 1024 * 1024
# 2 s are 20 times what reading the longest header takes.
_HEADER_CPU_S: Final = 2.0
_HEADER_MEMORY_BYTES: Final = 192 * MIB
# Of 22 kinds of noisy files a progressive CMYK JPEG without subsampling uses most: with its source
# 29 bytes a pixel in memory and 50 of address space, half of what it may (measured).
_BYTES_PER_PIXEL: Final = 48
# 36 megapixels of PNG take 1.5 s; a progressive JPEG may pass over its pixels 100 times.
_CPU_S_PER_MEGAPIXEL: Final = 0.5
# An arithmetic JPEG is decoded eight times to see that it is whole, each time in 0.1 s a megabyte:
# it takes two thirds of its time, all others at most 6 % (measured).
_CPU_S_PER_SOURCE_BYTE: Final = 1e-6
# Colour and alpha take 4 bytes, 8 where they have 16 bits; 16 leave a margin.
_RESULT_BYTES_PER_PIXEL: Final = 16
_RESULT_BYTES: Final = MIB + MAX_PROFILE_BYTES


@dataclass(frozen=True, slots=True)
class FileLimits:
    """Limits of one file: memory beyond what the idle process holds, time, bytes written.

    The time is the processor's alone: on a busy machine it passes slowly, and a process that waits
    without computing is found by `Watchdog`.
    """

    memory_bytes: int
    cpu_s: float
    result_bytes: int


def limits_of(source_bytes: int, pixels: int = 0) -> FileLimits:
    """Return the limits of a file of `source_bytes`; `pixels` is 0 until its header is read."""
    cpu_s = _HEADER_CPU_S
    if pixels:
        cpu_s += _CPU_S_PER_MEGAPIXEL * pixels / 1e6 + _CPU_S_PER_SOURCE_BYTE * source_bytes
    return FileLimits(
        memory_bytes=_HEADER_MEMORY_BYTES + 4 * source_bytes + _BYTES_PER_PIXEL * pixels,
        cpu_s=cpu_s,
        result_bytes=_RESULT_BYTES + source_bytes + _RESULT_BYTES_PER_PIXEL * pixels,
    )


def constrain(limits: FileLimits, idle_bytes: int | None) -> None:
    """Limit this process from now on, and start its clock again.

    idle_bytes: its address space before its first file; None: its memory is not limited.
    """
    if idle_bytes is not None:
        confinement.limit_softly(resource.RLIMIT_AS, idle_bytes + limits.memory_bytes)
    confinement.limit_softly(resource.RLIMIT_FSIZE, limits.result_bytes)
    signal.setitimer(signal.ITIMER_PROF, limits.cpu_s)


def stop_clock() -> None:
    """Stop the clock that `constrain` has started, until the next file."""
    signal.setitimer(signal.ITIMER_PROF, 0)


def main() -> None:
    """Decode files until the worker closes the socket."""
    parser = confinement.child_parser(__doc__.partition("\n")[0])
    parser.add_argument("--formats", required=True, help="what is decoded, comma-separated")
    parser.add_argument("--log-format", default="auto", help="how a fault of its own is logged")
    arguments = parser.parse_args()
    confinement.confine(arguments.lifeline, confinement.OomScore.DECODER)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # of the clock of `constrain`
    confinement.limit_files(_MAX_OPEN_FILES)
    printed = _capture_stderr(arguments.log_format)
    formats = frozenset(arguments.formats.split(","))
    sock = socket.socket(fileno=arguments.fd)
    idle_bytes = confinement.measure_address_space()
    while True:
        try:
            request = receive(sock)
        except EOFError:  # the worker is gone
            return
        _answer(sock, request, formats, idle_bytes, printed)
        del request


def _capture_stderr(log_format: str) -> confinement.CapturedStderr:
    """Capture what C libraries print; a crash of this program is still logged, as one line."""
    sys.stderr = os.fdopen(os.dup(2), "w")
    configure_logging("error", log_format)
    log_uncaught_exceptions()
    warnings.simplefilter("ignore")
    return confinement.CapturedStderr()


def _answer(
    sock: socket.socket,
    request: Frame,
    formats: Collection[str],
    idle_bytes: int | None,
    printed: confinement.CapturedStderr,
) -> None:
    printed.read()
    source = request.payload
    plan = MetadataPlan(**json.loads(request.header)) if request.header else None
    try:
        constrain(limits_of(len(source)), idle_bytes)
        header = read_header(source, formats)
        pixels = header.decoded_pixels or header.width_px * header.height_px
        constrain(limits_of(len(source), pixels), idle_bytes)
        image = decode(source, header, plan)
        reports_damage = FORMATS[header.format].reports_damage_on_stderr
        if reports_damage and (text := printed_damage(printed.read())):
            raise MalformedImage(detail=f"{header.format} pixels: {text}")
        stop_clock()
    except ServiceError as error:
        stop_clock()
        send(sock, pack_refusal(error))
        return
    _send_image(sock, image)


def pack_refusal(error: ServiceError) -> bytes:
    """Return the header that says why a file is refused."""
    detail = error.detail[:_MAX_DETAIL_CHARACTERS]
    return json.dumps({"refused": error.error_code, "detail": detail}).encode()


def pack_image(image: Image) -> tuple[bytes, list[memoryview]]:
    """Return the header of an image, and the parts of the memory that is sent with it."""
    metadata = {
        "height_px": image.height_px,
        "width_px": image.width_px,
        "has_alpha": image.has_alpha,
        "bits": 16 if image.is_deep else 8,
        "icc_bytes": len(image.icc or b""),
        "dpi": image.dpi,
        "credit": [image.credit.artist, image.credit.copyright] if image.credit else None,
        "jpeg_quality": image.jpeg_quality,
        "kept_bytes": [len(image.kept.exif), len(image.kept.xmp)] if image.kept else None,
    }
    parts = [np.ascontiguousarray(image.rgb).data]
    if image.alpha is not None:
        parts.append(np.ascontiguousarray(image.alpha).data)
    if image.icc:
        parts.append(memoryview(image.icc))
    if image.kept:
        parts += (memoryview(image.kept.exif), memoryview(image.kept.xmp))
    return json.dumps(metadata).encode(), parts


def _send_image(sock: socket.socket, image: Image) -> None:
    header, parts = pack_image(image)
    try:
        fd = write_memory(parts, is_sealed=can_seal())
    except OSError as error:
        if error.errno in _NO_MEMORY_ERRORS:
            os._exit(confinement.NO_MEMORY_STATUS)
        raise
    try:
        send(sock, header, fd=fd)
    finally:
        os.close(fd)


if __name__ == "__main__":
    main()
