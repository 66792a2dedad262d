"""A stream that fails or is cancelled keeps nothing of its image."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count

import pytest

from tests.garbage import Traced, leaving_none
from tests.service.image.samples import picture, save
from tests.service.upscale.box_engine import core_of
from tests.service.upscale.true_engine import TrueEngine
from upscaled.upscale.concurrency import Cancellation
from upscaled_models.backends.base import Started, Window
from upscaled_models.errors import EngineOutOfMemory


@dataclass
class Failing(TrueEngine):
    """Fails at every window from the third on, as it is started or as its result is made."""

    error: Callable[[], Exception] = RuntimeError
    fails_at_start: bool = False
    calls: "count[int]" = field(default_factory=count)

    def start(
        self, windows: Sequence[Window], reduce: int = 1, *, is_exact: bool = False
    ) -> Started:
        is_failing = next(self.calls) >= 2
        if is_failing and self.fails_at_start:
            raise self.error()
        started = super().start(windows, reduce, is_exact=is_exact)
        return _Unfinished(self.error) if is_failing else started


@dataclass(frozen=True)
class _Unfinished:
    error: Callable[[], Exception]
    is_done: bool = True

    def finish(self) -> list[Window]:
        raise self.error()


def traced() -> Traced:
    return Traced(save(picture(150, 150), "PNG"))


@pytest.mark.parametrize("fails_at_start", [True, False])
@pytest.mark.parametrize("error", [RuntimeError, EngineOutOfMemory])
@pytest.mark.parametrize("concurrent", [None, TrueEngine()])
def test_an_image_that_fails_is_forgotten_without_a_collection(
    error: type[Exception], fails_at_start: bool, concurrent: TrueEngine | None
) -> None:
    engine = Failing(
        window_px=64, error=error, fails_at_start=fails_at_start, concurrent=concurrent
    )
    with core_of(engine) as core, leaving_none():
        with suppress(error):
            core.upscale(traced(), 2)
        assert next(engine.calls) > 2


def test_an_image_that_is_cancelled_is_forgotten_without_a_collection() -> None:
    cancellation = Cancellation()

    def cancel(done: int, _: int) -> None:
        if done == 2:
            cancellation.cancel()

    with core_of(TrueEngine(window_px=64)) as core, leaving_none():
        with suppress(Exception):
            core.upscale(traced(), 2, on_tile=cancel, cancellation=cancellation)
        assert cancellation.is_cancelled
