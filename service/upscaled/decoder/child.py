"""Decoder process: decodes untrusted files, one after the other.

Started by a worker as `python -m upscaled.decoder.child --fd N --lifeline N --formats JPEG,PNG`. It
holds no key, no model and no connection, loads no torch, and answers with pixels or a refusal. What
it cannot do ends it, and so does the end of its worker.
"""

import errno
import json
import os
import signal
import socket
import sys
import warnings
from collections.abc import Collection
from typing import Final

import numpy as np

from upscaled.decoder.limits import NO_MEMORY_STATUS, constrain, limits_of, stop_clocks
from upscaled.errors import MalformedImage, ServiceError
from upscaled.image.decode import decode
from upscaled.image.formats.table import FORMATS, read_header
from upscaled.image.types import Image, MetadataPlan
from upscaled.logs import configure_logging, log_uncaught_exceptions
from upscaled.process.channel import Frame, receive, send
from upscaled.process.confinement import (
    CapturedStderr,
    OomScore,
    child_parser,
    confine,
    limit_files,
    measure_address_space,
)
from upscaled.process.shared_memory import can_seal, write_memory

_MAX_OPEN_FILES: Final = 32

_MAX_DETAIL_CHARACTERS: Final = 1000

_NO_MEMORY_ERRORS: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.ENOMEM})
"""Shared memory, or the disk that stands in for it, is full. A limit of the file's own is EFBIG."""


def main() -> None:
    """Decode files until the worker closes the socket."""
    parser = child_parser(__doc__.partition("\n")[0])
    parser.add_argument("--formats", required=True, help="what is decoded, comma-separated")
    parser.add_argument("--log-format", default="auto", help="how a fault of its own is logged")
    arguments = parser.parse_args()
    confine(arguments.lifeline, OomScore.DECODER)
    for clock in (signal.SIGPROF, signal.SIGALRM):  # of `limits.constrain`
        signal.signal(clock, signal.SIG_DFL)
    limit_files(_MAX_OPEN_FILES)
    printed = _capture_stderr(arguments.log_format)
    formats = frozenset(arguments.formats.split(","))
    sock = socket.socket(fileno=arguments.fd)
    idle_bytes = measure_address_space()
    while True:
        try:
            request = receive(sock)
        except EOFError:  # the worker is gone
            return
        _answer(sock, request, formats, idle_bytes, printed)
        del request


def _capture_stderr(log_format: str) -> CapturedStderr:
    """Take standard error from the libraries in C; a crash of ours is still logged, as one line."""
    sys.stderr = os.fdopen(os.dup(2), "w")
    configure_logging("error", log_format)
    log_uncaught_exceptions()
    warnings.simplefilter("ignore")
    return CapturedStderr()


def _answer(
    sock: socket.socket,
    request: Frame,
    formats: Collection[str],
    idle_bytes: int | None,
    printed: CapturedStderr,
) -> None:
    printed.take()
    source = request.payload
    plan = MetadataPlan(**json.loads(request.header)) if request.header else None
    try:
        constrain(limits_of(len(source)), idle_bytes)
        header = read_header(source, formats)
        pixels = header.decoded_pixels or header.width_px * header.height_px
        constrain(limits_of(len(source), pixels), idle_bytes)
        image = decode(source, header, plan)
        reports_damage = FORMATS[header.format].reports_damage_on_stderr
        if reports_damage and (text := printed.take()):
            raise MalformedImage(detail=f"{header.format} pixels: {text}")
        stop_clocks()
    except ServiceError as error:
        stop_clocks()
        send(sock, pack_refusal(error))
        return
    _send_image(sock, image)


def pack_refusal(error: ServiceError) -> bytes:
    """Return the header that says why a file is refused."""
    detail = error.detail[:_MAX_DETAIL_CHARACTERS]
    return json.dumps({"refused": error.error_code, "detail": detail}).encode()


def pack_image(image: Image) -> tuple[bytes, list[memoryview]]:
    """Return the header of an image, and the parts of the memory that goes with it."""
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
            os._exit(NO_MEMORY_STATUS)
        raise
    try:
        send(sock, header, fd=fd)
    finally:
        os.close(fd)


if __name__ == "__main__":
    main()
