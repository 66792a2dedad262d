"""All that a batch works with, opened together and closed together."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from upscaled.batch.journal import Journal
from upscaled.batch.room import PixelRoom
from upscaled.batch.shelf import Shelf
from upscaled.batch.stop import Stop
from upscaled.batch.work import RESULTS_UNDER_WAY_PX, Bench, TellPart, ignore_part
from upscaled.config import Settings
from upscaled.upscale.upscaler import open_upscaler
from upscaled_models.backends.base import Engine


@contextmanager
def open_bench(
    scale: int,
    settings: Settings,
    journal: Journal,
    output_dir: Path | None,
    stop: Stop,
    *,
    is_overwriting: bool,
    tell_part: TellPart = ignore_part,
    open_engine: Callable[[str], Engine] | None = None,
    asked_by: str | None = None,
) -> Iterator[Bench]:
    """A bench for one batch. What a killed run left on the shelf is dealt with before.

    Args:
        open_engine, asked_by: as of `upscaled.upscale.upscaler.open_upscaler`.

    Raises:
        as `open_upscaler`.
    """
    with ExitStack() as stack:
        shelf = stack.enter_context(Shelf(output_dir, journal, is_overwriting=is_overwriting))
        upscaler = stack.enter_context(
            open_upscaler(settings, scales=(scale,), open_engine=open_engine, asked_by=asked_by)
        )
        yield Bench(
            upscaler=upscaler,
            settings=settings,
            scale=scale,
            shelf=shelf,
            stop=stop,
            room=PixelRoom(RESULTS_UNDER_WAY_PX),
            tell_part=tell_part,
        )
