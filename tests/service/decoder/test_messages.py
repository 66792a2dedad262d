import dataclasses
import errno
from typing import Any

import numpy as np
import pytest

from upscaled.decoder.messages import pack, unpack
from upscaled.decoder.wire import WireError
from upscaled.image.types import Credit, Image
from upscaled.process.shared_memory import Bytes

RGB = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
ALPHA = np.arange(8, dtype=np.uint8).reshape(2, 4)
FULL = Image(
    rgb=RGB,
    alpha=ALPHA,
    icc=b"profile",
    dpi=(72.0, 300.5),
    credit=Credit("a", "b"),
    jpeg_quality=83,
)


def through(image: Image, **changes: Any) -> Image:
    facts, parts = pack(image)
    memory = np.frombuffer(b"".join(parts), np.uint8)

    def read(size_bytes: int) -> Bytes:
        if size_bytes != memory.size:
            raise ValueError("another size")
        return memory

    return unpack({**facts, **changes}, read)


DEEP = dataclasses.replace(
    FULL, rgb=RGB.astype(np.uint16) * 257 + 1, alpha=ALPHA.astype(np.uint16) * 257 + 2
)


@pytest.mark.parametrize("image", [FULL, DEEP, Image(rgb=RGB), Image(rgb=RGB[:, ::-1], icc=b"p")])
def test_every_field_of_an_image_arrives(image: Image) -> None:
    arrived = through(image)
    for field in dataclasses.fields(Image):
        sent, got = getattr(image, field.name), getattr(arrived, field.name)
        assert np.array_equal(sent, got) if isinstance(sent, np.ndarray) else sent == got, field


def test_the_full_image_has_every_field() -> None:
    """A field that is added to Image must be sent too."""
    assert all(getattr(FULL, field.name) is not None for field in dataclasses.fields(Image))


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
    ],
)
def test_facts_that_cannot_be_are_not_believed(lie: dict[str, Any]) -> None:
    with pytest.raises(WireError):
        through(FULL, **lie)


def test_a_lack_of_memory_here_is_not_blamed_on_the_decoder() -> None:
    facts, _ = pack(Image(rgb=np.zeros((64, 64, 3), np.uint8)))

    def refuse(size_bytes: int) -> Bytes:
        raise OSError(errno.ENOMEM, "no memory")

    with pytest.raises(MemoryError):
        unpack(facts, refuse)
