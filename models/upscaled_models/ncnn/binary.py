"""The binary half of an ncnn pair: the layers' weights one after the other, without a heading.

A convolution's weights begin with a tag of four bytes that says how they are stored; biases and
slopes are float32 without a tag (`ModelBinFromDataReader::load` in ncnn's `src/modelbin.cpp`). A
file that is too short or too long, or has another tag, raises `BadBinary`, which names the layer.
"""

from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from upscaled_models.errors import WeightsError

Values = TypeVar("Values", NDArray[np.float32], NDArray[np.float16])
Weights = NDArray[np.float32] | NDArray[np.float16]

TAG_BYTES: Final = 4
FLOAT32_TAGS: Final = (0, 0x0002C056)
FLOAT16_TAG: Final = 0x01306B47
INT8_TAG: Final = 0x000D4B38
ALIGNMENT: Final = 4
"""Float16 weights are filled up to a multiple of so many bytes."""


class BadBinary(WeightsError):
    """A `.bin` file that cannot be used; the text does not name the file."""


class WeightReader:
    """Reads weights from a `.bin` file's bytes, in order; nothing is copied."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def read_tagged(self, count: int, layer: str) -> Weights:
        """Return the next `count` weights, in float32 or float16 by their tag."""
        start = self._at
        tag = int.from_bytes(self._read(TAG_BYTES, layer), "little")
        if tag in FLOAT32_TAGS:
            return self.read_plain(count, layer)
        if tag == FLOAT16_TAG:
            padded_bytes = -(-2 * count // ALIGNMENT) * ALIGNMENT
            data = self._read(padded_bytes, layer)
            return _finite(np.frombuffer(data, "<f2", count), layer)
        if tag == INT8_TAG:
            raise BadBinary(
                f"{layer}: its weights are in 8 bits, which are not read here: "
                "use the pair in 16 or 32 bits"
            )
        raise BadBinary(
            f"{layer}: at byte {start} is the tag 0x{tag:08X}, neither 16 nor 32 bits: "
            "the file is damaged, or not this .param file's"
        )

    def end(self) -> None:
        """Refuse a file with bytes that no layer has read."""
        if self._at != len(self._data):
            raise BadBinary(
                f"it has {len(self._data)} bytes, and the layers of the .param file {self._at}"
            )

    def read_plain(self, count: int, layer: str) -> NDArray[np.float32]:
        """Return the next `count` float32 values, which have no tag."""
        return _finite(np.frombuffer(self._read(4 * count, layer), "<f4", count), layer)

    def _read(self, size_bytes: int, layer: str) -> memoryview:
        start, self._at = self._at, self._at + size_bytes
        if self._at > len(self._data):
            raise BadBinary(
                f"it ends after {len(self._data)} bytes, and {layer} has weights up to {self._at}"
            )
        return memoryview(self._data)[start : self._at]


def _finite(values: Values, layer: str) -> Values:
    if not np.isfinite(values).all():
        raise BadBinary(f"{layer} has weights that are not finite")
    return values
