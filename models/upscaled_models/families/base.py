"""The record of a family of networks: its shapes, its reach, and the names of its weights.

A shape holds a network's arguments by name; sizes are of the tensors in a weights file by name.
Loads neither torch nor numpy: the front end reads this.
"""

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import ClassVar, Final

from upscaled_models.families.pair_graph import GraphValue, Kind, Pattern, is_of_picture

Shape = Mapping[str, int | str]
Sizes = Mapping[str, tuple[int, ...]]

MAX_SHAPE_NUMBER: Final = 4096
"""More layers or channels than any network that could be run."""


class UnknownArchitecture(ValueError):
    """Weights that belong to no network of the known families."""


class NetworkFamily(ABC):
    """One family of networks: everything that follows from a shape without running the network."""

    label: ClassVar[str]
    """The family's name in lists for people, as in "SPAN and RealPLKSR networks"."""

    example: ClassVar[Shape]
    """A valid shape, which defines the names of the arguments."""

    words: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """The allowed values of the arguments that are words."""

    counts: ClassVar[Collection[str]] = ()
    """Arguments that count repeated layers: they may be 0, all other numbers are at least 1."""

    optional: ClassVar[Shape] = {}
    """Arguments that shapes leave out at these values, as all records did before they existed."""

    scale_argument: ClassVar[str] = "scale"

    invents_texture: ClassVar[bool] = False
    """The network invents texture, so its results in 8 bits are compared with the truth too."""

    is_quantisable: ClassVar[bool] = False

    tuning_rate: ClassVar[float] = 0.0
    """Distance of an 8-bit weight's move per tuning step, in its own steps; 0: it is not tuned."""

    equalised_share: ClassVar[float] = 0.45
    """Trade-off of equalising before tuning: 1 for activations alone, 0 for weights alone."""

    float_layer: ClassVar[str] = ""
    """The first layer, where it stays in floats in every 8-bit form."""

    tail_layers: ClassVar[Sequence[str]] = ()
    """The layers after the trunk, which stay in floats where 8 bits cost too much accuracy."""

    inaccurate: ClassVar[Collection[str]] = ()
    """Types that the networks' results are known to be too inaccurate in, such as "bfloat16"."""

    untuned_window_px: ClassVar[int] = 384

    pair_network: ClassVar[str] = ""
    """The network as error texts name it ("an RRDB network"), where its ncnn pairs are read."""

    pair_result: ClassVar[Kind | None] = None
    """The kind of the last layer in its ncnn pairs; None where they are not read."""

    pair_defaults: ClassVar[Mapping[str, tuple[float, ...]]] = {}
    """Tensors of the state dict whose values an ncnn pair may leave out."""

    @abstractmethod
    def recognises(self, names: Collection[str]) -> bool:
        """Return whether weights of these names belong to this family."""

    @abstractmethod
    def shape_of(self, sizes: Sizes) -> Shape:
        """Read the network's shape from the sizes of its weights."""

    def new_names(self, names: Collection[str]) -> dict[str, str]:
        """Map each name of an older file's weights to today's; empty for any other names."""
        return {}

    def block_of(self, layer: str) -> str:
        """Return the block of the trunk that a layer belongs to, which may stay in floats alone."""
        return ""

    def input_group(self, convolution: str) -> str:
        """Return the group of convolutions that share their input's 8-bit levels."""
        return convolution

    def has_graph(self, shape: Shape) -> bool:
        """Return whether OpenVINO can run a network of this shape."""
        return True

    def pair_shape(self, values: Sequence[GraphValue]) -> Shape:
        """Read the shape from the graph of an ncnn pair; `values[0]` is the result.

        Raises:
            UnknownArchitecture: the graph departs from the family's; the text names the layer.
        """
        raise NotImplementedError

    def pair_graph(self, shape: Shape, values: Sequence[GraphValue]) -> Pattern:
        """Return the graph of the network of that shape; it may follow `values` in options."""
        raise NotImplementedError

    def find_first_convolution(self, values: Sequence[GraphValue]) -> GraphValue:
        """Find a convolution of the picture, before which it may be folded or normalised."""
        found = next((each for each in values if is_of_picture(each, "convolution")), None)
        if found is None:
            raise UnknownArchitecture(
                f"{values[0].layer}: {self.pair_network} has a convolution of the picture"
            )
        return found

    @abstractmethod
    def radius_px(self, shape: Shape) -> int:
        """Return how far an output pixel looks, in input pixels."""

    def halo_px(self, shape: Shape) -> int:
        """Return what a tile's window needs around it, in input pixels: the radius, exactly."""
        return self.radius_px(shape)

    def fold(self, shape: Shape) -> int:
        """Return the input pixels per trunk pixel and side."""
        return 1

    def window_px(self, shape: Shape, *, is_cuda: bool, is_tuned: bool) -> int:
        """Return the side of the window that was measured best, in input pixels.

        On CUDA two of 800 px make the longest side at x4. On two CPU cores small networks gain
        over 384 px only in shorter types, which only tuning tries.
        """
        return 800 if is_cuda else 512 if is_tuned else self.untuned_window_px

    def cuda_bytes_per_px(self, shape: Shape) -> int:
        """Estimate the most bytes of a GPU's memory that an input pixel of a window needs.

        Where it is too low, windows are halved when memory ends.
        """
        return 1000

    def native_scale(self, shape: Shape) -> int:
        return whole(shape, self.scale_argument)

    def check_shape(self, shape: Shape) -> None:
        """Refuse arguments that no network of this family has, before one is built from them."""
        for key, value in shape.items():
            if not self._is_possible(key, value):
                raise ValueError(f"cannot have {key} {value!r}")

    def _is_possible(self, key: str, value: int | str) -> bool:
        if key in self.words:
            return value in self.words[key]
        least = 0 if key in self.counts else 1
        return type(value) is int and least <= value <= MAX_SHAPE_NUMBER


def whole(values: Mapping[str, int | str], key: str, default: int | None = None) -> int:
    """Return a whole number of a shape or of a manifest's entry; `default` where it is left out."""
    value = values[key] if default is None else values.get(key, default)
    if not isinstance(value, int):
        raise TypeError(f"{key} must be a whole number, not {value!r}")
    return value


def convolution_size(sizes: Sizes, key: str) -> tuple[int, int, int, int]:
    """Return the size of a convolution's weights: channels out, channels in, height, width."""
    size = sizes.get(key)
    if size is None or len(size) != 4:
        raise UnknownArchitecture(f"{key} is {size}, not a convolution's four sizes")
    return size[0], size[1], size[2], size[3]


def numbers_in(names: Collection[str], pattern: re.Pattern[str]) -> list[int]:
    """Return the number in each name that matches the pattern, whose group 1 it is."""
    return [int(match[1]) for name in names if (match := pattern.fullmatch(name))]


def scale_of_channels(num_out: int) -> int:
    """Return the scale of a pixel shuffle whose input has `num_out` channels."""
    scale = math.isqrt(num_out // 3)
    if scale < 1 or num_out != 3 * scale**2:
        raise UnknownArchitecture(f"{num_out} channels out are 3 colours at no whole scale")
    return scale
