"""Rectangles of an image: scaled, grown, and as views of its pixels."""

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray


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

    def write(self, canvas: NDArray[Any], pixels: NDArray[Any]) -> None:
        """Write `[height, width, ...]` pixels to this region of the canvas.

        Raises:
            ValueError: the shapes differ; nothing is broadcast.
        """
        if pixels.shape[:2] != (self.height, self.width):
            raise ValueError(f"{pixels.shape} does not fill {self}")
        canvas[self.top : self.bottom, self.left : self.right] = pixels
