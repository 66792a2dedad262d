"""The core: all that upscales pictures, opened together and closed together.

    with open_upscaler(load_settings()) as upscaler:
        result = upscaler.upscale(Path("photo.jpg").read_bytes(), 4)
    Path("photo-x4.jpg").write_bytes(result.data)

A worker, a batch, the doctor and the benchmarks all work through it. It owns the loaded models, the
threads that use the device (`service.upscale.scheduler`), the processes that decode
(`service.decoding.decoder`) and the threads that look after results.
"""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final

import cv2

from models.errors import UnknownModel
from models.store import ModelStore
from service.config import MAX_OUTPUT_SIDE_PX, Settings
from service.cores import count_cores
from service.decoding.decoder import Decoder, count_decoders
from service.engine.choice import choose_model, open_model
from service.engine.device import choose_device, has_free_cores
from service.engine.engine import Engine
from service.errors import InvalidParameter
from service.image.types import Image
from service.upscale.cancellation import Cancellation
from service.upscale.job import Way, ignore_tile, run_job
from service.upscale.loaded_models import LoadedModels
from service.upscale.loop import Care, OnTile, upscale
from service.upscale.model_choice import Rung, choose_rung
from service.upscale.result import Result
from service.upscale.scheduler import OnBatch, Scheduler, ignore_batch
from service.upscale.warm_up import warm_up

SCALES: Final = (2, 4)


@dataclass(frozen=True, slots=True)
class Upscaler:
    """Upscales any number of pictures at once, a thread for each. Made by `open_upscaler`.

    ladders: by scale, which model is for which picture, best first. seconds_per_px: device seconds
    for one input pixel, by model, of those that were warmed up.
    """

    settings: Settings
    models: LoadedModels
    scheduler: Scheduler
    decoder: Decoder
    ladders: Mapping[int, tuple[Rung, ...]]
    seconds_per_px: Mapping[str, float]
    pool: ThreadPoolExecutor | None = None

    def upscale(
        self,
        source: bytes,
        scale: int,
        *,
        model: str = "",
        key_id: int | None = None,
        on_tile: OnTile = ignore_tile,
        cancellation: Cancellation | None = None,
        max_output_side_px: int = MAX_OUTPUT_SIDE_PX,
    ) -> Result:
        """Decode, upscale and encode one picture.

        Args:
            source: a file of one of the settings' formats.
            scale: 2 or 4; a result longer than `max_output_side_px` is scaled down to it.
            model: one that is here, by name; "": the best for this picture (`ladders`).
            key_id: the API key whose share of the device the picture uses; None: one of its own.
            on_tile: called with (done, total) before the first tile and after each.
            cancellation: ends the work from another thread.

        Raises:
            InvalidParameter: there is no such model here.
            MalformedImage, UnsupportedImageFormat, ResolutionTooHigh: the source is refused.
            Cancelled: by `cancellation`, or `on_tile` raised it.
            InternalError, EngineOutOfMemory: the network failed.
            ModelError: the file of the model cannot be used.
        """
        cancellation = cancellation or Cancellation()
        cancellation.check()
        if model:
            self._require(model)

        @contextmanager
        def open_way(_source: bytes, image: Image) -> Iterator[Way]:
            rung = self.choose(image, scale, model)
            with ExitStack() as stack:
                engine = stack.enter_context(self.models.use(rung.model))
                lane = stack.enter_context(self.scheduler.open_lane(engine, key_id))
                stack.enter_context(cancellation.reaching(lane))
                yield Way(lane)

        return run_job(
            source,
            scale,
            open_way,
            self.settings,
            on_tile,
            decode=self.decoder.decode,
            care_pool=self.pool,
            max_output_side_px=max_output_side_px,
        )

    def upscale_pixels(self, image: Image, scale: int, *, model: str = "", care: Care) -> Image:
        """Upscale decoded pixels, and do with each window's result what `care` says.

        Args and errors are otherwise those of `upscale`.
        """
        with (
            self.models.use(self.choose(image, scale, model).model) as engine,
            self.scheduler.open_lane(engine) as lane,
        ):
            return upscale(image, scale, lane, on_tile=ignore_tile, care=care)

    def choose(self, image: Image, scale: int, model: str = "") -> Rung:
        """What upscales a picture: the model that is named, or the best that it may have."""
        if model:
            return Rung(model=model)
        px = image.width_px * image.height_px
        return choose_rung(self.ladders[scale], px, is_harmed=False)

    def label(self, model: str) -> str:
        """What runs a model and in which precision, as "torch float32"."""
        with self.models.use(model) as engine:
            return engine.label

    @property
    def windows_at_once(self) -> int:
        """The most windows that one batch of a loaded model may have."""
        most = 1
        for model in self.models.loaded():
            with self.models.use(model) as engine:
                most = max(most, engine.batch, engine.small_batch)
        return most

    def prove(self) -> None:
        """Run every loaded model once: after some errors of a device every further call fails.

        Raises:
            whatever the engine does.
        """
        for model in self.models.loaded():
            with self.models.use(model) as engine:
                warm_up(engine, self.scheduler)

    def _require(self, model: str) -> None:
        store = ModelStore(self.settings.models_dir)
        try:
            is_here = store.path(store.find(model)) is not None
        except UnknownModel:
            is_here = False
        if not is_here:
            raise InvalidParameter(f"There is no model {model!r} here")


@contextmanager
def open_upscaler(
    settings: Settings,
    *,
    scales: tuple[int, ...] = SCALES,
    open_engine: Callable[[str], Engine] | None = None,
    on_batch: OnBatch = ignore_batch,
    begin: Callable[[], None] = lambda: None,
    on_decoder_death: Callable[[], None] = lambda: None,
    decoders: int | None = None,
    asked_by: str | None = None,
    is_warm: bool = False,
) -> Iterator[Upscaler]:
    """Everything that upscaling takes: models of the ladders, decoding processes, threads.

    OpenCV gets one thread in this process: the other cores are the network's, or other pictures'.

    Args:
        scales: those that will be asked for; their models are opened now, others when needed.
        open_engine: opens a model by its name, instead of `service.engine.choice.open_model`.
        on_batch: see `service.upscale.scheduler.OnBatch`.
        begin: called first in every thread that the network computes in, to lower its priority;
            not in that of small pictures.
        on_decoder_death: see `service.decoding.decoder.Decoder`.
        decoders: how many files are decoded at once, by processes that start now; None: as suits
            this machine; 0: one, whose process starts when it is needed.
        asked_by: what named the model in the settings, where it was not its variable; error texts
            name it.
        is_warm: run each opened model once, and measure it, before the first picture comes.

    Raises:
        SettingsError: a device or a model that is not here, or a window too small for the model.
        ModelError: an unknown model, or a weights file that cannot be used.
        InternalError: a model's result is not finite in float32.
        OSError: no process that decodes can be started.
    """
    cv2.setNumThreads(1)
    decoders = count_decoders() if decoders is None else decoders
    with ExitStack() as stack:
        scheduler = stack.enter_context(Scheduler(on_batch, begin=begin))
        decoder = stack.enter_context(
            Decoder(
                settings.formats,
                processes=max(1, decoders),
                log_format=settings.log_format,
                on_death=on_decoder_death,
            )
        )
        decoder.warm_up(decoders)  # while the models are opened
        ladders = find_ladders(settings, scales, asked_by)
        models = stack.enter_context(
            LoadedModels(open_engine or (lambda name: open_model(settings, name)), begin=begin)
        )
        names = dict.fromkeys(rung.model for ladder in ladders.values() for rung in ladder)
        seconds_per_px = {}
        for name in names:
            with models.use(name) as engine:
                if is_warm:
                    seconds_per_px[name] = warm_up(engine, scheduler)
        pool = None
        if has_free_cores(settings):
            pool = stack.enter_context(ThreadPoolExecutor(count_cores()))
        yield Upscaler(settings, models, scheduler, decoder, ladders, seconds_per_px, pool)


def find_ladders(
    settings: Settings, scales: tuple[int, ...], asked_by: str | None = None
) -> Mapping[int, tuple[Rung, ...]]:
    """By scale, which model is for which picture, best first.

    Raises:
        as `open_upscaler`, but for `InternalError` and `OSError`.
    """
    store = ModelStore(settings.models_dir)
    is_cuda = choose_device(settings).is_cuda
    ladders = {}
    for scale in scales:
        spec, _ = choose_model(settings, scale, store, is_cuda=is_cuda, asked_by=asked_by)
        ladders[scale] = (Rung(model=spec.name),)
    return ladders
