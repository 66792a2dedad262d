"""A network that repeats each pixel, so that results have their source's colours; it can fail."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tests.service.upscale.box_engine import BoxEngine, average_down
from upscaled_models.backends.base import Computed, Started, Window


def untouched(result: Window) -> Window:
    return result


@dataclass
class TrueEngine(BoxEngine):
    """`fault` spoils every result, `exact_fault` those that are to be exact."""

    fault: Callable[[Window], Window] = untouched
    exact_fault: Callable[[Window], Window] = untouched

    def filter(self, window: Window) -> Window:
        large: Window = window.repeat(self.native_scale, axis=0).repeat(self.native_scale, axis=1)
        return large

    def start(
        self, windows: Sequence[Window], reduce: int = 1, *, is_exact: bool = False
    ) -> Started:
        self.seen += [(window.shape[0], window.shape[1]) for window in windows]
        self.exact += windows if is_exact else []
        spoil = self.exact_fault if is_exact else self.fault
        return Computed(
            [np.asarray(spoil(average_down(self.filter(window), reduce))) for window in windows]
        )
