"""Rectangles of an image: scaled, grown, as views of its pixels, and padded past its edge."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from upscaled.image.pixels import Pixels
from upscaled_models.backends.base import Window


@dataclass(frozen=True, slots=True)
class Region:
    """Half-open rectangle: rows `top` to `bottom`, columns `left` to `right`, ends excluded."""

    top: int
    left: int
    height: int
    width: int

    @property
    def bottom(self) -> int:
        return self.top + self.height

    @property
    def right(self) -> int:
        return self.left + self.width

    def scaled(self, factor: int) -> "Region":
        """Return the same rectangle on a canvas `factor` times as large."""
        return Region(
            self.top * factor, self.left * factor, self.height * factor, self.width * factor
        )

    def grown(self, by_px: int, limit: "Region") -> "Region":
        """Return the rectangle with `by_px` more on each side, as far as `limit` reaches."""
        top, left = max(limit.top, self.top - by_px), max(limit.left, self.left - by_px)
        bottom = min(limit.bottom, self.bottom + by_px)
        right = min(limit.right, self.right + by_px)
        return Region(top, left, bottom - top, right - left)

    def within(self, outer: "Region") -> "Region":
        """Return the same rectangle, its position counted from `outer`'s corner."""
        return Region(self.top - outer.top, self.left - outer.left, self.height, self.width)

    def read(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Return a view of it in `[H, W, ...]`, cut short where it passes the array's end."""
        return pixels[self.top : self.bottom, self.left : self.right]

    def read_padded(self, pixels: Pixels) -> Window:
        """Return it in `[H, W, 3]`, whole: what lies past the array's end is padded."""
        return _pad(self.read(pixels), self.height, self.width)

    def write(self, canvas: NDArray[Any], pixels: NDArray[Any]) -> None:
        """Write `[height, width, ...]` pixels to this region of the canvas.

        Raises:
            ValueError: the shapes differ; nothing is broadcast.
        """
        if pixels.shape[:2] != (self.height, self.width):
            raise ValueError(f"{pixels.shape} does not fill {self}")
        canvas[self.top : self.bottom, self.left : self.right] = pixels


def _pad(pixels: Pixels, height: int, width: int) -> Window:
    """Pad `[h, w, 3]` to `[height, width, 3]` by mirroring at the right and bottom edge.

    An axis too short to be mirrored repeats its last pixel.
    """
    missing = (height - pixels.shape[0], width - pixels.shape[1])
    for axis, count in enumerate(missing):
        if count:
            mode = "reflect" if count < pixels.shape[axis] else "edge"
            widths = [(0, count if axis == at else 0) for at in range(3)]
            pixels = np.pad(pixels, widths, mode=mode)  # type: ignore[call-overload]
    return np.ascontiguousarray(pixels)
