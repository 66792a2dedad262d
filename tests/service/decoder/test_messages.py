import dataclasses
import errno
import json
import os
from typing import Any

import numpy as np
import pytest

from upscaled.decoder import messages
from upscaled.decoder.child import pack_image, pack_refusal
from upscaled.decoder.messages import ProtocolError, pack_plan, unpack
from upscaled.errors import InternalError, MalformedImage
from upscaled.image.kept_exif import MAX_EXIF_BYTES
from upscaled.image.kept_xmp import MAX_XMP_BYTES
from upscaled.image.types import Credit, Image, KeptMetadata, MetadataPlan
from upscaled.process.channel import Frame, can_seal, write_memory

RGB = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
ALPHA = np.arange(8, dtype=np.uint8).reshape(2, 4)
FULL = Image(
    rgb=RGB,
    alpha=ALPHA,
    icc=b"profile",
    dpi=(72.0, 300.5),
    credit=Credit("a", "b"),
    jpeg_quality=83,
    kept=KeptMetadata(b"exif", b"<xmp/>"),
)
NOTHING_KEPT = dataclasses.replace(FULL, kept=KeptMetadata())

DEEP = dataclasses.replace(
    FULL, rgb=RGB.astype(np.uint16) * 257 + 1, alpha=ALPHA.astype(np.uint16) * 257 + 2
)


def reply(image: Image, **changes: Any) -> Frame:
    """Make the frame that a decoder sends of an image, with false metadata in it."""
    header, parts = pack_image(image)
    metadata = {**json.loads(header), **changes}
    return Frame(json.dumps(metadata).encode(), b"", write_memory(parts, is_sealed=can_seal()))


@pytest.mark.parametrize(
    "image", [FULL, DEEP, NOTHING_KEPT, Image(rgb=RGB), Image(rgb=RGB[:, ::-1], icc=b"p")]
)
def test_every_field_of_an_image_arrives(image: Image) -> None:
    arrived = unpack(reply(image))
    for field in dataclasses.fields(Image):
        sent, got = getattr(image, field.name), getattr(arrived, field.name)
        assert np.array_equal(sent, got) if isinstance(sent, np.ndarray) else sent == got, field


@pytest.mark.parametrize("more", [0, 1])
@pytest.mark.parametrize("part", ["exif", "xmp"])
def test_kept_metadata_have_no_more_bytes_than_a_jpeg_segment(part: str, more: int) -> None:
    largest = {"exif": MAX_EXIF_BYTES, "xmp": MAX_XMP_BYTES}[part]
    kept = KeptMetadata(**{part: bytes(largest + more)})
    sent = reply(dataclasses.replace(FULL, kept=kept))
    if more:
        with pytest.raises(ProtocolError):
            unpack(sent)
    else:
        assert unpack(sent).kept == kept


def test_the_plan_of_kept_metadata_is_sent_in_a_header_that_the_decoder_reads() -> None:
    plan = MetadataPlan(True, 128, 96)
    assert MetadataPlan(**json.loads(pack_plan(plan))) == plan
    assert pack_plan(None) == b""


def test_the_full_image_has_every_field() -> None:
    """A field that is added to Image must be sent too."""
    assert all(getattr(FULL, field.name) is not None for field in dataclasses.fields(Image))


def test_a_refusal_arrives_as_the_error_that_it_is() -> None:
    with pytest.raises(MalformedImage) as refusal:
        unpack(Frame(pack_refusal(MalformedImage(detail="x" * 5000)), b""))
    assert refusal.value.detail == "x" * 1000


@pytest.mark.parametrize(
    "header", [b"[]", b"null", b"{", b"\xff", b"[" * 100_000, b"{}", pack_refusal(InternalError())]
)
def test_a_header_that_makes_no_sense_is_refused(header: bytes) -> None:
    with pytest.raises(ProtocolError):
        unpack(Frame(header, b""))


@pytest.mark.parametrize(
    "lie",
    [
        {"height_px": 0},
        {"height_px": -2},
        {"height_px": 3},
        {"height_px": 2.0},
        {"height_px": True},
        {"height_px": "2"},
        {"width_px": 10**9},
        {"has_alpha": False},
        {"icc_bytes": -7},
        {"icc_bytes": 2**60},
        {"icc_bytes": None},
        {"dpi": [72]},
        {"dpi": [72, float("nan")]},
        {"dpi": "72x72"},
        {"bits": 16},
        {"bits": 12},
        {"bits": None},
        {"jpeg_quality": 0},
        {"jpeg_quality": 101},
        {"jpeg_quality": 90.0},
        {"jpeg_quality": True},
        {"credit": ["a", 1]},
        {"credit": {"artist": "a"}},
        {"kept_bytes": [4]},
        {"kept_bytes": [4, -1]},
        {"kept_bytes": [3, 6]},
        {"kept_bytes": None},
    ],
)
def test_impossible_metadata_are_refused_and_their_memory_closed(lie: dict[str, Any]) -> None:
    lying = reply(FULL, **lie)
    with pytest.raises(ProtocolError):
        unpack(lying)
    assert lying.fd is not None
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(lying.fd)


def test_a_lack_of_memory_in_the_worker_is_no_error_of_the_decoder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(fd: int, size_bytes: int) -> None:
        raise OSError(errno.ENOMEM, "no memory")

    monkeypatch.setattr(messages, "read_memory", refuse)
    with pytest.raises(MemoryError):
        unpack(reply(FULL))
