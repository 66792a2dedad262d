"""The core: models, device threads and decoders, opened and closed together.

    with open_core(load_settings()) as core:
        result = core.upscale(Path("photo.jpg").read_bytes(), 4)
    Path("photo-x4.jpg").write_bytes(result.data)

The Python API (`upscaled.upscale.upscaler`), a worker, a batch, the doctor and the benchmarks all
work through it. It owns the loaded models, the threads that use the device
(`upscaled.upscale.scheduler`), the processes that decode (`upscaled.decoder.pool`) and the threads
that post-process results.
"""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np

from upscaled.config import SCALES, Settings
from upscaled.decoder.pool import Decoder, count_decoders
from upscaled.errors import InvalidParameter
from upscaled.image.harm import Harm, measure_harm
from upscaled.image.output import OutputSpec
from upscaled.image.types import Image
from upscaled.upscale.cancellation import Cancellation
from upscaled.upscale.engines import choose_device, choose_model, open_model
from upscaled.upscale.fair_queue import USUAL_S_PER_PX
from upscaled.upscale.job import (
    ImageStreams,
    OpenStreams,
    UpscaledImage,
    run_job,
    upscale_image,
)
from upscaled.upscale.ladder import find_ladder, log_ladders, name_rung
from upscaled.upscale.loaded_models import LoadedModels
from upscaled.upscale.loop import OnTile, find_gain, upscale
from upscaled.upscale.model_choice import Rung, choose_rung, find_faithful, find_strength
from upscaled.upscale.post_process.steps import PostProcessing
from upscaled.upscale.post_process.tempering import AUTO_STRENGTH, Tempering, is_harmed
from upscaled.upscale.result import Result
from upscaled.upscale.scheduler import OnBatch, Scheduler
from upscaled.upscale.speed import Speed, find_speed, read_speed
from upscaled.upscale.warm_up import measure_speed, warm_up
from upscaled_models.backends.base import Engine
from upscaled_models.errors import UnknownModel
from upscaled_models.processor import count_cores
from upscaled_models.registry import ModelSpec
from upscaled_models.store import ModelStore


@dataclass(frozen=True, slots=True)
class Core:
    """Upscales any number of pictures at once, a thread for each. Made by `open_core`.

    ladders: by scale, which model is for which picture, best first. seconds_per_px: device seconds
    for one input pixel, by model, of those that were measured.
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
        on_tile: OnTile | None = None,
        cancellation: Cancellation | None = None,
        output: OutputSpec | None = None,
    ) -> Result:
        """Decode, upscale and encode one picture.

        Args:
            source: a file of one of the settings' formats.
            scale: 2 or 4.
            model: one that is here, by name; "": the best for this picture (`ladders`).
            key_id: the API key whose share of the device the picture uses; None: one of its own.
            output: what the result is to be; None: see `upscaled.upscale.job.run_job`.
            on_tile: called with (done, total) before the first tile and after each.
            cancellation: ends the work from another thread.

        Raises:
            InvalidParameter: there is no such model here.
            MalformedImage, UnsupportedImageFormat, ResolutionTooHigh: the source is refused.
            Cancelled: by `cancellation`, or `on_tile` raised it.
            InternalError, EngineOutOfMemory: the network failed.
            ModelError: the file of the model cannot be used.
        """
        return run_job(
            source,
            scale,
            self._opener(scale, model, key_id, cancellation or Cancellation()),
            self.settings,
            on_tile,
            decode=self.decoder.decode,
            strips_pool=self.pool,
            output=output,
        )

    def upscale_image(
        self,
        image: Image,
        scale: int,
        output: OutputSpec,
        *,
        model: str = "",
        on_tile: OnTile | None = None,
        cancellation: Cancellation | None = None,
    ) -> UpscaledImage:
        """Upscale decoded pixels; arguments and errors as of `upscale`."""
        return upscale_image(
            image,
            scale,
            self._opener(scale, model, None, cancellation or Cancellation()),
            self.settings,
            output,
            on_tile=on_tile,
            strips_pool=self.pool,
        )

    def _opener(
        self, scale: int, model: str, key_id: int | None, cancellation: Cancellation
    ) -> OpenStreams:
        """Check what was asked for, and return what opens the streams of one picture.

        Raises:
            Cancelled: the work was cancelled before it began.
            InvalidParameter: there is no such model here.
        """
        cancellation.check()
        if model:
            self._require(model)

        @contextmanager
        def open_streams(image: Image, run_scale: int) -> Iterator[ImageStreams]:
            rung, harm = self.choose(image, scale, model)
            with ExitStack() as stack:
                engine = stack.enter_context(self.models.use(rung.model))
                streams = self._open_streams(stack, engine, rung, harm, run_scale, key_id)
                stack.enter_context(cancellation.reaching(*streams.all))
                yield streams

        return open_streams

    def upscale_pixels(
        self, image: Image, scale: int, *, model: str = "", post_processing: PostProcessing
    ) -> Image:
        """Upscale decoded pixels with these steps after the network, untempered, for benchmarks.

        Args and errors are otherwise those of `upscale`.
        """
        rung = choose_rung(
            self._ladder(scale, model), image.width_px * image.height_px, is_harmed=False
        )
        with (
            self.models.use(rung.model) as engine,
            self.scheduler.open_stream(engine) as stream,
        ):
            return upscale(image, scale, stream, on_tile=None, post_processing=post_processing)

    def choose(self, image: Image, scale: int, model: str = "") -> tuple[Rung, Harm]:
        """What upscales a picture, and what the picture has been through.

        Args:
            model: the one that is named; "": the best that the picture may have.
        """
        is_deep = image.rgb.dtype != np.uint8
        px = image.width_px * image.height_px
        ladder = self._ladder(scale, model)
        if all(rung.tempered_with == "" and not rung.harmed_only for rung in ladder):
            return choose_rung(ladder, px, is_harmed=False, is_deep=is_deep), Harm()
        harm = measure_harm(image)
        return choose_rung(ladder, px, is_harmed=is_harmed(harm), is_deep=is_deep), harm

    def _ladder(self, scale: int, model: str) -> tuple[Rung, ...]:
        if not model:
            return self.ladders[scale]
        spec = ModelStore(self.settings.models_dir).find(model)
        return (name_rung(spec, scale, self.settings.temper),)

    def _open_streams(
        self,
        stack: ExitStack,
        engine: Engine,
        rung: Rung,
        harm: Harm,
        run_scale: int,
        key_id: int | None,
    ) -> ImageStreams:
        """Open the streams of one picture: its model, and the faithful one it is tempered with."""
        stream = stack.enter_context(
            self.scheduler.open_stream(engine, key_id, s_per_px=self._s_per_px(rung.model))
        )
        faithful = find_faithful(find_gain(run_scale, engine.info.spec.native_scale))
        if not rung.tempered_with or not faithful:
            return ImageStreams(stream)
        strength = find_strength(self.settings.temper, is_named=False)
        tempering = Tempering.of(AUTO_STRENGTH if strength is None else strength, run_scale, harm)
        calm = stack.enter_context(self.models.use(faithful))
        beside = stack.enter_context(
            self.scheduler.open_stream(calm, beside=stream, s_per_px=self._s_per_px(faithful))
        )
        return ImageStreams(stream, beside, tempering)

    def _s_per_px(self, model: str) -> float:
        return self.seconds_per_px.get(model, USUAL_S_PER_PX)

    def label(self, model: str) -> str:
        """What runs a model and in which precision, as "torch float32"."""
        with self.models.use(model) as engine:
            return engine.info.label

    @property
    def windows_at_once(self) -> int:
        """The most windows that one batch of a loaded model may have."""
        most = 1
        for model in self.models.loaded():
            with self.models.use(model) as engine:
                most = max(most, engine.info.batch, engine.info.small_batch)
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
def open_core(
    settings: Settings,
    *,
    scales: tuple[int, ...] = SCALES,
    open_engine: Callable[[str], Engine] | None = None,
    on_batch: OnBatch | None = None,
    begin: Callable[[], None] | None = None,
    decoders: int | None = None,
    asked_by: str | None = None,
    is_warm: bool = False,
    measures: bool = True,
) -> Iterator[Core]:
    """Open the models of the ladders, the decoding processes and the threads of one device.

    OpenCV gets one thread in this process until it is closed: the other cores are the network's, or
    other pictures'.

    Args:
        scales: those that will be asked for; their models are opened now, others when needed.
        open_engine: opens a model by its name, instead of `upscaled.upscale.engines.open_model`.
        on_batch: see `upscaled.upscale.scheduler.OnBatch`.
        begin: called first in every thread that the network computes in, to lower its priority;
            not in that of small pictures.
        decoders: how many files are decoded at once, by processes that start now; None: as suits
            this machine; 0: as suits it, by processes that start when they are needed.
        asked_by: what named the model in the settings, where it was not its variable; error texts
            name it.
        is_warm: run each model once as soon as it is opened, and measure it, unless its speed is
            known.
        measures: measure what the ladders depend on, where this machine has not done so before;
            else slow models of which nothing is known take no picture.

    Raises:
        SettingsError: a device or a model that is not here, or a window too small for the model.
        ModelError: an unknown model, or a weights file that cannot be used.
        InternalError: a model's result is not finite in float32.
        OSError: no process that decodes can be started.
    """
    with ExitStack() as stack:
        stack.callback(cv2.setNumThreads, cv2.getNumThreads())
        cv2.setNumThreads(1)
        scheduler = stack.enter_context(Scheduler(on_batch, begin=begin))
        decoder = stack.enter_context(
            Decoder(
                settings.formats,
                processes=decoders or count_decoders(),
                log_format=settings.log_format,
            )
        )
        # While the models are opened.
        decoder.warm_up(count_decoders() if decoders is None else decoders)
        store = ModelStore(settings.models_dir)
        # The last rung of each ladder, whatever the machine can afford beside it.
        fastest = frozenset(
            choose_model(settings, scale, store, asked_by=asked_by)[0].name for scale in scales
        )
        opening = _Opening(settings, scheduler, open_engine, is_warm=is_warm)
        models = stack.enter_context(
            LoadedModels(
                opening.open, begin=begin, idle_unload_s=settings.idle_unload_s, kept=fastest
            )
        )
        known = partial(opening.measure, models) if measures else partial(read_speed, settings)
        ladders = {scale: find_ladder(settings, scale, known, asked_by) for scale in scales}
        for name in dict.fromkeys(rung.model for ladder in ladders.values() for rung in ladder):
            with models.use(name):
                pass
        pool = None
        if not choose_device(settings).is_cpu:  # the network leaves the cores to others
            pool = stack.enter_context(ThreadPoolExecutor(count_cores()))
        log_ladders(ladders)
        yield Core(settings, models, scheduler, decoder, ladders, opening.seconds_per_px, pool)


class _Opening:
    """Opens engines, and finds out what a pixel takes with each: `seconds_per_px`, by model."""

    def __init__(
        self,
        settings: Settings,
        scheduler: Scheduler,
        open_engine: Callable[[str], Engine] | None,
        *,
        is_warm: bool,
    ) -> None:
        self.seconds_per_px: dict[str, float] = {}
        self._settings = settings
        self._scheduler = scheduler
        self._open_engine = open_engine or partial(open_model, settings)
        self._is_warm = is_warm
        self._measured: set[str] = set()

    def open(self, model: str) -> Engine:
        """Open a model; warm it up where that is asked for and its speed is not found otherwise.

        A slow model would take seconds for it at every start.
        """
        engine = self._open_engine(model)
        if self._is_warm and model not in self._measured | self.seconds_per_px.keys():
            self.seconds_per_px[model] = warm_up(engine, self._scheduler)
        return engine

    def measure(self, models: LoadedModels, spec: ModelSpec) -> Speed:
        """The stored speed of a model; where there is none, open it, measure and store it."""
        speed = read_speed(self._settings, spec)
        if speed is None:
            self._measured.add(spec.name)
            with models.use(spec.name) as engine:
                measure = partial(measure_speed, engine, self._scheduler, self._settings)
                speed = find_speed(self._settings, spec, measure)
        self.seconds_per_px[spec.name] = speed.s_per_px
        return speed
