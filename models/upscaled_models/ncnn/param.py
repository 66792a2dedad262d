"""The text half of an ncnn pair: one line a layer, with its blobs and numbered options.

7767517                                     magic
40 41                                       layers, blobs
Convolution Conv_0 1 1 data 54 0=64 1=3     kind, name, inputs, outputs, blobs, options
Eltwise Add_16 2 1 a b c 0=1 -23301=2,0.2,1 option 1 is an array: -23300 - 1 = length, values

A file that is no such text, or damaged, raises `BadParam`, which names the line.
"""

import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from upscaled_models.errors import WeightsError

MAGIC: Final = 7767517
MAX_PARAM_BYTES: Final = 4 << 20
"""Largest `.param` file: RRDB with 23 blocks has 117 kB."""
MAX_LAYERS: Final = 20_000
"""Most layers: RRDB with 23 blocks has 1,000."""

Number = int | float

_ARRAY_BASE: Final = -23300
_WHOLE: Final = re.compile(r"-?\d{1,9}", re.ASCII)
_REAL: Final = re.compile(r"-?\d{1,12}(\.\d{0,20})?([eE][+-]?\d{1,3})?", re.ASCII)
_MAX_SHOWN: Final = 40
_NO_EFFECT: Final = frozenset({30, 31})
"""Options of any layer that only say how to compute: shape hints and the features to leave out."""


class BadParam(WeightsError):
    """A `.param` file that cannot be used; the text does not name the file."""


@dataclass(frozen=True, slots=True)
class ParamLayer:
    """One layer: `options` holds a number, or an array's numbers, by the option's own number."""

    line: int
    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    options: Mapping[int, Number | tuple[Number, ...]]

    def __str__(self) -> str:
        return f"line {self.line}, {shorten(self.kind)} {shorten(self.name)}"


class Options:
    """A layer's options, each of which must be read: `refuse_others` refuses the rest."""

    def __init__(self, layer: ParamLayer) -> None:
        self.layer = layer
        self._left = {k: v for k, v in layer.options.items() if k not in _NO_EFFECT}

    def number(self, key: int, default: Number) -> Number:
        value = self._left.pop(key, default)
        if isinstance(value, tuple):
            raise BadParam(f"{self.layer}: option {key} is an array, must be one number")
        return value

    def count(self, key: int) -> int:
        """Return an option that must be there, as a whole number above 0."""
        value = self.number(key, 0)
        if not isinstance(value, int) or value < 1:
            raise BadParam(f"{self.layer}: option {key} must be a whole number above 0")
        return value

    def numbers(self, key: int) -> tuple[Number, ...]:
        """Return an array; one number is an array of one."""
        value = self._left.pop(key, ())
        return value if isinstance(value, tuple) else (value,)

    def demand(self, *rows: tuple[int, Number, Number, str]) -> None:
        """Refuse other values than these rows have: option, its only value, default, meaning."""
        for key, must_be, default, meaning in rows:
            value = self.number(key, default)
            if value != must_be:
                raise BadParam(
                    f"{self.layer}: {meaning} is {value} (option {key}), in networks here {must_be}"
                )

    def ignore_all(self) -> None:
        self._left.clear()

    def refuse_others(self) -> None:
        if self._left:
            raise BadParam(f"{self.layer}: option {min(self._left)} is not known here")


def parse_param(data: bytes) -> list[ParamLayer]:
    """Return the layers of a `.param` file, in its order, which is that of their weights."""
    lines = _text_of(data).split("\n")
    if lines[0].strip() != str(MAGIC):
        raise BadParam(f"not an ncnn .param file: it does not begin with {MAGIC}")
    counts = lines[1].split() if len(lines) > 1 else []
    if len(counts) != 2 or not all(_WHOLE.fullmatch(count) for count in counts):
        raise BadParam("line 2 must be two whole numbers, of layers and of blobs")
    layer_count, blob_count = map(int, counts)
    numbered = [(number, line) for number, line in enumerate(lines[2:], start=3) if line.strip()]
    if len(numbered) != layer_count:
        raise BadParam(f"it holds {len(numbered)} layers, and says it has {layer_count}")
    if layer_count > MAX_LAYERS:
        raise BadParam(f"{layer_count} layers are more than any network here has")
    layers = [_parse_line(number, line.split()) for number, line in numbered]
    blobs = sum(len(layer.outputs) for layer in layers)
    if blobs != blob_count:
        raise BadParam(f"it holds {blobs} blobs, and says it has {blob_count}")
    return layers


def shorten(word: str) -> str:
    """Return a word of the file as error texts show it."""
    return ascii(word if len(word) <= _MAX_SHOWN else word[:_MAX_SHOWN] + "...")[1:-1]


def _text_of(data: bytes) -> str:
    if len(data) > MAX_PARAM_BYTES:
        raise BadParam(f"{len(data)} bytes are more than any network's .param here has")
    if data[:4] == struct.pack("<I", MAGIC):
        raise BadParam("a .param file in ncnn's binary form; only the text form is read here")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadParam("not an ncnn .param file: it is no text") from error


def _parse_line(number: int, words: list[str]) -> ParamLayer:
    counts = words[2:4]
    if len(counts) != 2 or not all(re.fullmatch(r"\d{1,4}", count, re.ASCII) for count in counts):
        raise BadParam(f"line {number} is no layer: kind, name, number of inputs and of outputs")
    inputs, outputs = map(int, counts)
    blobs, options = words[4 : 4 + inputs + outputs], words[4 + inputs + outputs :]
    if len(blobs) != inputs + outputs or any("=" in blob for blob in blobs):
        raise BadParam(f"line {number} names fewer blobs than it says it has")
    kind, name = words[:2]
    read, made = tuple(blobs[:inputs]), tuple(blobs[inputs:])
    return ParamLayer(number, kind, name, read, made, _parse_options(number, options))


def _parse_options(number: int, words: list[str]) -> dict[int, Number | tuple[Number, ...]]:
    options: dict[int, Number | tuple[Number, ...]] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not _WHOLE.fullmatch(key):
            raise BadParam(f"line {number}: {shorten(word)} is no option")
        index = int(key)
        is_array = index <= _ARRAY_BASE
        index = _ARRAY_BASE - index if is_array else index
        if index in options:
            raise BadParam(f"line {number} has option {index} twice")
        options[index] = _parse_array(number, value) if is_array else _parse_number(number, value)
    return options


def _parse_array(number: int, value: str) -> tuple[Number, ...]:
    length, *values = (_parse_number(number, part) for part in value.split(","))
    if length != len(values):
        raise BadParam(f"line {number}: an array of {len(values)} numbers says it has {length}")
    return tuple(values)


def _parse_number(number: int, value: str) -> Number:
    if _WHOLE.fullmatch(value):
        return int(value)
    if not _REAL.fullmatch(value) or not math.isfinite(float(value)):
        raise BadParam(f"line {number}: {shorten(value)} is no number")
    return float(value)
