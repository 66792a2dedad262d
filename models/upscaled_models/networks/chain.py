"""Networks that are a chain of 3x3 convolutions: what their graphs are built from, link by link."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from upscaled_models.backends.openvino.layers import Convolution, Floats
from upscaled_models.backends.openvino.nodes import convolve, leak, to_grid
from upscaled_models.backends.openvino.runtime import Node


@dataclass(frozen=True, slots=True)
class Link:
    """One convolution of a chain; arguments as of `nodes.convolve`.

    slope: of the activation behind it, as of `nodes.leak`; None: there is none.
    """

    layer: Convolution
    slope: float | Floats | None
    input_gain: float = 1.0
    output_gain: float = 1.0
    order: NDArray[np.intp] | None = None

    def to_grid(self, x: Node) -> Node:
        """Add the rounding of its input to 8-bit levels, where it has any."""
        quantised = self.layer.quantised
        return x if quantised is None else to_grid(x, quantised, self.input_gain)

    def mark_grid(self, x: Node) -> Node:
        """Add the same rounding for what lies on these levels already, so that all may be joined.

        OpenVINO keeps 8 bits only behind a rounding.
        """
        quantised = self.layer.quantised
        if quantised is None:
            return x
        return to_grid(x, replace(quantised, input_scale=None), self.input_gain)

    def convolve(self, x: Node, *, rows_padded: tuple[int, int] = (1, 1)) -> Node:
        """Add the convolution of what `to_grid` returned, and its activation.

        rows_padded: rows of zeros above and below; columns have one on either side.
        """
        y = convolve(
            x,
            self.layer,
            input_gain=self.input_gain,
            output_gain=self.output_gain,
            order=self.order,
            is_on_grid=True,
            rows_padded=rows_padded,
        )
        return y if self.slope is None else leak(y, self.slope)


@dataclass(frozen=True, slots=True)
class Chain:
    """A network from its input in levels, `[N, 3, h, w]`, to its last convolution's result.

    prepare: adds what comes before the first convolution. rows_below: how many of its rows depend,
    at the bottom of a window, on pixels that the window does not show. fold: input pixels per pixel
    and side behind it.
    """

    prepare: Callable[[Node], Node]
    links: tuple[Link, ...]
    rows_below: int = 0
    fold: int = 1

    def build(self, x: Node) -> Node:
        """Add the whole network."""
        y = self.prepare(x)
        for link in self.links:
            y = link.convolve(link.to_grid(y))
        return y
