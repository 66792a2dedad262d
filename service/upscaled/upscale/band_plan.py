"""Plan the bands of rows in which a tall window goes through a network, in integers.

A network that takes a window in bands computes no row of it twice, so a window may be as tall as
the image: halos are needed at its sides alone. A band's result ends above the band's own end, by
as many rows as a result looks far; and what post-processing makes of it ends still higher:

    first  ─┬─ band 0        ─┬─ core 0
            │                 │
            │                ─┴─ made down to here, less what post-processing reads
    fed    ─┼─ band 1        ─┬─ core 1
            │                 │
            │                ─┴─
    fed    ─┼─ band 2, last   │  core 2
    last   ─┴─               ─┴─
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np

from upscaled_models.backends.base import least_window_px, round_up
from upscaled_models.registry import ModelSpec

_LEAST_CORE_PX: Final = 32
"""Least width of a column beside its halos."""

_BANDS_PER_WINDOW: Final = 2
"""Bands that have the pixels of one window by itself, where they are high enough: of 1500 px width,
those of 82 rows take no longer in all than those of 164, for half of the memory."""

_LEAST_HALOS: Final = 4
"""Fewest rows of the highest bands, in halos: so that half of them is enough for a band."""


@dataclass(frozen=True, slots=True)
class BandRows:
    """Rows of one band, counted in the image: each from its first row to the one behind its last.

    own: those that go through the network now. made: those whose result comes of it. shown: those,
    and the rows above them that post-processing reads. window: all that the result depends on.
    final: those of which post-processing has read all it needs.
    """

    own: tuple[int, int]
    made: tuple[int, int]
    shown: tuple[int, int]
    window: tuple[int, int]
    final: tuple[int, int]
    is_first: bool
    is_last: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class BandSizes:
    """Sizes by which tall windows are cut into bands.

    most_px: pixels of a window by itself, and at most of an inner band. radius_px: how far a result
    looks. reach_px: how many rows of results around a row post-processing reads. multiple_px: bands
    start and end at multiples of it.
    """

    most_px: int
    radius_px: int
    reach_px: int
    multiple_px: int

    @classmethod
    def of(cls, spec: ModelSpec, halo_px: int, window_px: int) -> "BandSizes | None":
        """Return the sizes for a model; None where windows of that area are too small for bands.

        halo_px: what windows need at their sides: the model's halo, and what post-processing reads.
        """
        reach_px = halo_px - spec.halo_px
        sizes = cls(
            most_px=window_px**2,
            radius_px=spec.radius_px,
            reach_px=reach_px,
            multiple_px=spec.multiple_px,
        )
        return sizes if sizes.widest_px >= least_window_px(halo_px, _LEAST_CORE_PX) else None

    @property
    def halo_px(self) -> int:
        return self.radius_px + self.reach_px

    @property
    def widest_px(self) -> int:
        """Return how wide a window may be, so that its bands are not too low."""
        return self.most_px // self._least_highest_px

    def count(self, height_px: Any, width_px: Any) -> Any:  # noqa: ANN401  (numbers, or arrays)
        """Return in how many bands windows of a size go through the network."""
        inner = self._divide(height_px, width_px)[0]
        return np.where(height_px * width_px <= self.most_px, 1, 2 + inner)

    def plan(self, first: int, last: int, width_px: int) -> list[BandRows]:
        """Cut the rows from `first` to `last` of a window that takes two bands or more.

        The inner bands are alike, as high as their number allows; the first has what they leave.
        The last is low: rows of a result are encoded once a band is done, so little is left then.
        """
        inner, height = map(int, self._divide(last - first, width_px))
        between = last - first - self.first_px - self.last_px
        start = first + self.first_px + max(0, self._align(between - inner * height))
        fed = [first, *(start + at * height for at in range(inner + 1)), last]
        return self.cut(fed)

    def cut(self, fed: Sequence[int]) -> list[BandRows]:
        """Return the bands between the rows `fed` of a window, the first and last those it ends at.

        The first band has at least `first_px` rows, the last `last_px`, and others `least_px`.
        """
        first, *inner, last = fed
        made = [first, *(end - self.radius_px for end in inner), last]
        final = [first, *(end - self.halo_px for end in inner), last]
        bands = []
        for at, own in enumerate(pairwise(fed)):
            shown = max(first, made[at] - 2 * self.reach_px)
            bands.append(
                BandRows(
                    own,
                    (made[at], made[at + 1]),
                    (shown, made[at + 1]),
                    (max(first, self._align(shown - self.radius_px)), own[1]),
                    (final[at], final[at + 1]),
                    is_first=at == 0,
                    is_last=at == len(inner),
                )
            )
        return bands

    @property
    def _least_highest_px(self) -> int:
        return _LEAST_HALOS * (self.halo_px + self.multiple_px)

    @property
    def first_px(self) -> int:
        """Return how many rows the first band has: its result ends below where the part begins."""
        return round_up(3 * self.halo_px, self.multiple_px)

    @property
    def least_px(self) -> int:
        """Return how many rows an inner band has at least, more than it leaves to the next."""
        return 2 * (self.halo_px + self.multiple_px)

    @property
    def last_px(self) -> int:
        """Return how many rows the last band has at least: every layer needs some of its own."""
        return round_up(self.halo_px + 4 * self.multiple_px, self.multiple_px)

    def _divide(self, height_px: Any, width_px: Any) -> tuple[Any, Any]:  # noqa: ANN401
        """Return the number and height of the inner bands of a window."""
        between = height_px - self.first_px - self.last_px
        fewest = np.maximum(-(-between // self._highest_px(width_px)), 1)
        height = np.maximum(self._align(between // fewest), self.multiple_px)
        return np.where(between < self.least_px, 0, between // height), height

    @property
    def usual_px(self) -> int:
        """Return the pixels that a band has at most, where its width allows it."""
        return self.most_px // _BANDS_PER_WINDOW

    def _highest_px(self, width_px: Any) -> Any:  # noqa: ANN401
        width_px = np.maximum(width_px, 1)
        usual = np.maximum(self.usual_px // width_px, self._least_highest_px)
        highest = np.minimum(usual, self.most_px // width_px)
        return np.maximum(self._align(highest), self.multiple_px)

    def _align(self, rows: Any) -> Any:  # noqa: ANN401
        return rows // self.multiple_px * self.multiple_px
