"""The machine's own matrix product as a contestant: the most that any convolution could reach."""

import time
from collections.abc import Callable
from typing import Final

import torch

from scripts.benchmark.contestant import Absent, Entry

SIDES: Final = (1024, 2048, 4096)
CUDA_SIDES: Final = (4096, 8192, 16384)
SMALL_SIDES: Final = (256,)
TRIALS: Final = 3
RUN_S: Final = 0.3
SMALL_RUN_S: Final = 0.01


class Matmul:
    """Square matrix products of the fastest of several sizes, for about a third of a second.

    `entry.precision` is torch's name of the type; of `int8` the sums are int32. `entry.height_px`
    other than 0 means one small size, for tests.
    """

    def __init__(self, entry: Entry) -> None:
        self._device = torch.device(entry.device)
        self._dtype: torch.dtype = getattr(torch, entry.precision)
        is_small = entry.height_px > 0
        sides = SMALL_SIDES if is_small else SIDES if entry.device == "cpu" else CUDA_SIDES
        products = {side: self._make(side) for side in sides}
        seconds = {side: self._time(product) for side, product in products.items()}
        side = max(sides, key=lambda side: side**3 / seconds[side])
        self._product = products[side]
        self._count = max(1, round((SMALL_RUN_S if is_small else RUN_S) / seconds[side]))
        self.gflop = 2 * side**3 * self._count / 1e9
        self.label = f"product of {side}x{side} {entry.precision}"

    def run(self) -> None:
        for _ in range(self._count):
            self._product()
        self._wait()

    def _make(self, side: int) -> Callable[[], torch.Tensor]:
        shape = (side, side)
        if self._dtype == torch.int8:
            one, other = (
                torch.randint(-127, 128, shape, dtype=torch.int8, device=self._device)
                for _ in range(2)
            )
            other = other.t().contiguous().t()  # the layout that every backend takes
            return lambda: torch._int_mm(one, other)
        one, other = (torch.randn(shape, device=self._device).to(self._dtype) for _ in range(2))
        return lambda: one @ other

    def _time(self, product: Callable[[], torch.Tensor]) -> float:
        """Return the seconds of the fastest of several, the first not counted."""
        seconds = []
        for _ in range(1 + TRIALS):
            started = time.perf_counter()
            try:
                product()
                self._wait()
            except RuntimeError as error:
                raise Absent(f"no matrix product of {self._dtype} here: {error}") from error
            seconds.append(time.perf_counter() - started)
        return min(seconds[1:])

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
