"""One way to run a model: a runtime in a type, on so many threads."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, Self

from upscaled_models.autotune.accuracy import Bar
from upscaled_models.backends.base import Engine


class Tunable(Engine, Protocol):
    """An engine that can be tried."""

    def strict(self) -> Self:
        """The same, but a result that is not finite raises `InternalError` at once.

        An engine that serves may compute such a window again in float32; one that is tried must
        show that it never needs to.
        """
        ...

    def sized(self, *, window_px: int, batch: int, proof: str) -> Self:
        """The same, of other `window_px`, `batch` and `proof`."""
        ...


@dataclass(frozen=True, slots=True)
class Candidate:
    """A way that may be tried.

    runtime: "torch" or "openvino". dtype: "float32", "bfloat16", "float16" or "int8". threads: of
    the CPU. version: of the runtime, and of a file of its own if it reads one: where it changes,
    the choice is made again. bar: what its picture must reach. open: makes the engine, weights in
    place; it may raise whatever its runtime raises where this machine cannot do it, and the
    candidate is then refused.
    """

    runtime: str
    dtype: str
    threads: int
    version: str
    bar: Bar
    open: Callable[[], Tunable] = field(compare=False, repr=False)

    @property
    def label(self) -> str:
        return f"{self.runtime} {self.dtype}"

    @property
    def name(self) -> str:
        """Tells it from the same on fewer threads."""
        return f"{self.label} on {self.threads} threads"
