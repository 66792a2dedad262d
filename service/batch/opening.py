"""All that a batch works with, opened together and closed together."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import cv2

from models.store import ModelStore
from service.batch.fingerprint import fingerprint
from service.batch.journal import Journal
from service.batch.room import PixelRoom
from service.batch.shelf import Shelf
from service.batch.stop import Stop
from service.batch.work import RESULTS_UNDER_WAY_PX, Bench, TellPart, ignore_part
from service.config import Settings
from service.decoding.decoder import Decoder, count_decoders
from service.engine.engine import Engine
from service.upscale.scheduler import Scheduler


@contextmanager
def open_bench(
    make_engine: Callable[[], Engine],
    scale: int,
    settings: Settings,
    journal: Journal,
    output_dir: Path | None,
    stop: Stop,
    *,
    is_overwriting: bool,
    tell_part: TellPart = ignore_part,
) -> Iterator[Bench]:
    """A bench for one batch. What a killed run left on the shelf is dealt with before.

    make_engine: opens the engine, while the processes that decode start.

    Raises:
        whatever `make_engine` raises.
        OSError: no process that decodes can be started.
    """
    cv2.setNumThreads(1)  # the other cores are the network's, which is what takes long
    with ExitStack() as stack:
        shelf = stack.enter_context(Shelf(output_dir, journal, is_overwriting=is_overwriting))
        decoders = count_decoders()
        decoder = stack.enter_context(Decoder(settings.formats, processes=decoders))
        decoder.warm_up(decoders)
        engine = make_engine()
        spec = ModelStore(settings.models_dir).find(engine.model)
        yield Bench(
            engine=engine,
            scheduler=stack.enter_context(Scheduler()),
            decoder=decoder,
            settings=settings,
            scale=scale,
            fingerprint=fingerprint(settings, scale, spec),
            shelf=shelf,
            stop=stop,
            room=PixelRoom(RESULTS_UNDER_WAY_PX),
            tell_part=tell_part,
        )
