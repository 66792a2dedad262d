"""Core of the service: upscales images from file to file, or from pixels to pixels.

    with open_core(load_settings()) as core:
        result = core.upscale(Path("photo.jpg").read_bytes(), 4)
    Path("photo-x4.jpg").write_bytes(result.data)

The Python API (`upscaled.upscale.upscaler`), a worker, a batch, the doctor and the benchmarks all
work through it; `upscaled.upscale.opening` opens it.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Final

from upscaled.config import Settings
from upscaled.decoder.pool import Decoder
from upscaled.errors import InvalidParameter
from upscaled.image.encode import OverlappedEncoder
from upscaled.image.harm import Harm, measure_harm
from upscaled.image.output import (
    MAX_ENCODER_BYTES,
    MAX_OUTPUT_SIDE_PX,
    OutputSpec,
    decide_output,
)
from upscaled.image.types import Image
from upscaled.upscale.concurrency import Cancellation, WeightedSemaphore
from upscaled.upscale.image_work import ImageStreams, scale_to_run, upscale_to_output
from upscaled.upscale.ladder import find_faithful, find_tempering, name_rung
from upscaled.upscale.loaded_models import LoadedModels
from upscaled.upscale.loop import TilesDone
from upscaled.upscale.model_choice import Rung, choose_rung
from upscaled.upscale.passes import find_gain
from upscaled.upscale.post_process.tempering import is_harmed
from upscaled.upscale.result import Result, ResultSink, Timings
from upscaled.upscale.scheduler import Scheduler
from upscaled.upscale.speed import warm_up
from upscaled.upscale.stream import Stream
from upscaled.upscale.tile_request import USUAL_S_PER_PX
from upscaled_models.backends.base import Engine
from upscaled_models.errors import UnknownModel
from upscaled_models.registry import split_strength
from upscaled_models.store import ModelStore

OnTile = Callable[[int, int], None]

MAX_IN_FLIGHT: Final = 34
"""Most images in flight at once: more would hold memory and no longer fill larger batches."""


@dataclass(frozen=True, slots=True)
class _Options:
    """The options of one image; see `Core.upscale`."""

    scale: int
    model: str
    key_id: int | None
    on_tile: OnTile | None
    cancellation: Cancellation
    ladder: tuple[Rung, ...] = ()
    sink: ResultSink | None = None


@dataclass(frozen=True, slots=True)
class Core:
    """Upscales any number of images at once, a thread for each. Made by `open_core`.

    ladders: by scale, which model is for which image, best first. seconds_per_px: device seconds
    for one input pixel, by model, of those that were measured. threads: for post-processing
    windows. encoders: bounds the memory of encoders that need much of it, in bytes.
    """

    settings: Settings
    models: LoadedModels
    scheduler: Scheduler
    decoder: Decoder
    ladders: Mapping[int, tuple[Rung, ...]]
    seconds_per_px: Mapping[str, float]
    threads: ThreadPoolExecutor | None = None
    encoders: WeightedSemaphore = field(
        default_factory=lambda: WeightedSemaphore(MAX_ENCODER_BYTES)
    )

    def upscale(
        self,
        source: bytes,
        scale: int,
        *,
        model: str = "",
        key_id: int | None = None,
        on_tile: OnTile | None = None,
        sink: ResultSink | None = None,
        cancellation: Cancellation | None = None,
        output: OutputSpec | None = None,
        ladder: tuple[Rung, ...] = (),
    ) -> Result:
        """Decode, upscale and encode one image.

        Args:
            source: a file of one of the settings' formats.
            scale: 2 or 4.
            model: an installed model, by name; "": the best for this image (`ladders`).
            key_id: the API key whose share of the device the image uses; None: a share of its own.
            output: what the result is to be, decided from the file's header; None: as the decoded
                image asks for, and no longer than `MAX_OUTPUT_SIDE_PX`.
            ladder: which model is for which image, in place of this machine's for the scale.
            on_tile: called with (done, total) before the first tile and after each, see
                `TilesDone`; what it raises ends the work.
            sink: gets the file as it grows, and at its end the result, which then holds none of it;
                what it raises ends the work.
            cancellation: ends the work from another thread.

        Raises:
            InvalidParameter: no such model is installed.
            MalformedImage, UnsupportedImageFormat, ResolutionTooHigh: the source is refused.
            Cancelled: by `cancellation`, or `on_tile` raised it.
            InternalError, EngineOutOfMemory: the network failed.
            ModelError: the file of the model cannot be used.
        """
        options = _Options(
            scale, model, key_id, on_tile, cancellation or Cancellation(), ladder, sink
        )
        self._check(options)
        started = time.perf_counter()
        image = self.decoder.decode(source, output.metadata_plan if output else None)
        decode_s = time.perf_counter() - started
        if output is None:
            output = decide_output(
                image, scale, keeps_depth=self.settings.deep_png, max_side_px=MAX_OUTPUT_SIDE_PX
            )
        return self._upscale_and_encode(image, output, options, decode_s)

    def upscale_image(
        self,
        image: Image,
        scale: int,
        output: OutputSpec,
        *,
        model: str = "",
        on_tile: OnTile | None = None,
        cancellation: Cancellation | None = None,
    ) -> Image:
        """Upscale decoded pixels; arguments and errors as of `upscale`."""
        options = _Options(scale, model, None, on_tile, cancellation or Cancellation())
        self._check(options)
        upscaled = image
        with self._open_streams(image, output, options) as streams:
            for tiles_done in self._report_tiles(image, output, options, streams):
                upscaled = tiles_done.result or upscaled
        return upscaled

    def choose(
        self,
        image: Image,
        scale: int,
        model: str = "",
        ladder: tuple[Rung, ...] = (),
        *,
        is_deep: bool,
    ) -> tuple[Rung, Harm]:
        """Choose what upscales an image; also return its harm, where that counts.

        model, ladder: as of `upscale`. is_deep: its result has 16 bits a channel, so that it goes
        through float32; an image of 16 bits whose result has 8 is rounded first, and as fast as any
        other.
        """
        ladder = ladder or self.ladders[scale]
        if model:
            spec = ModelStore(self.settings.models_dir).find(model)
            ladder = (name_rung(spec, scale, self.settings.temper),)
        is_harm_used = any(rung.tempered_with or rung.harmed_only for rung in ladder)
        harm = measure_harm(image) if is_harm_used else Harm()
        px = image.width_px * image.height_px
        rung = choose_rung(ladder, px, is_harmed=is_harm_used and is_harmed(harm), is_deep=is_deep)
        return rung, harm

    def label(self, model: str) -> str:
        """Return the backend and precision that run a model, as "torch float32"."""
        with self.models.use(model) as engine:
            return engine.info.label

    @property
    def max_in_flight(self) -> int:
        """Return how many images at once keep the device at work: two of its largest batches."""
        most = 1
        for model in self.models.loaded():
            with self.models.use(model) as engine:
                most = max(most, engine.info.batch, engine.info.small_batch)
        return min(MAX_IN_FLIGHT, 2 * most + 2)

    def check_engines(self) -> None:
        """Run every loaded model once: after some errors of a device every further call raises."""
        for model in self.models.loaded():
            with self.models.use(model) as engine:
                warm_up(engine, self.scheduler)

    def _check(self, options: _Options) -> None:
        options.cancellation.check()
        if not options.model:
            return
        store = ModelStore(self.settings.models_dir)
        try:
            is_here = not store.missing(store.find(options.model))
        except UnknownModel:
            is_here = False
        if not is_here:
            raise InvalidParameter(f"There is no model {options.model!r} here")

    def _upscale_and_encode(
        self, image: Image, output: OutputSpec, options: _Options, decode_s: float
    ) -> Result:
        """Upscale a decoded image, and encode its rows while others are computed."""
        started, computed_share = time.perf_counter(), 1.0
        quality = self.settings.jpeg_quality
        with OverlappedEncoder(output, quality, options.sink) as encoder:
            with self._open_streams(image, output, options) as streams:
                opening_s = time.perf_counter() - started
                for tiles_done in self._report_tiles(image, output, options, streams):
                    computed_share = tiles_done.computed_share
                    if tiles_done.result is not None:
                        encoder.advance(tiles_done.result, tiles_done.rows_ready)
            with self.encoders.hold(output.encoder_bytes):
                computed = time.perf_counter()
                upscaled, data = encoder.finish()
        model, denoise = split_strength(streams.stream.engine.info.model)
        result = Result(
            data=data,
            media_type=output.media_type,
            width_px=upscaled.width_px,
            height_px=upscaled.height_px,
            model=model,
            label=streams.stream.engine.info.label,
            timings=Timings(
                decode_s=decode_s,
                network_s=computed - started,
                encode_s=time.perf_counter() - computed,
                device_s=sum(stream.device_s for stream in streams.all),
                computed_share=computed_share,
                opening_s=opening_s,
            ),
            tempered_with="" if not streams.faithful else streams.faithful.engine.info.model,
            denoise=denoise,
        )
        if options.sink is not None:
            options.sink.end(result)
        return result

    def _report_tiles(
        self, image: Image, output: OutputSpec, options: _Options, streams: ImageStreams
    ) -> Iterator[TilesDone]:
        progress = upscale_to_output(
            image, options.scale, output, streams, self.settings, self.threads
        )
        for tiles_done in progress:
            if options.on_tile is not None:
                options.on_tile(tiles_done.done, tiles_done.total)
            yield tiles_done

    @contextmanager
    def _open_streams(
        self, image: Image, output: OutputSpec, options: _Options
    ) -> Iterator[ImageStreams]:
        """Open the streams of one image: its model, and the faithful one it is tempered with."""
        rung, harm = self.choose(
            image, options.scale, options.model, options.ladder, is_deep=output.is_deep
        )
        run_scale = scale_to_run(image, options.scale, output)
        with ExitStack() as stack:
            engine = stack.enter_context(self.models.use(rung.model))
            stream = self._open_stream(stack, engine, rung.model, key_id=options.key_id)
            streams = ImageStreams(stream)
            gain = find_gain(run_scale, engine.info.spec.native_scale)
            if rung.tempered_with and (name := find_faithful(gain)):
                engine = stack.enter_context(self.models.use(name))
                faithful = self._open_stream(stack, engine, name, beside=stream)
                tempering = find_tempering(self.settings, run_scale, harm)
                streams = ImageStreams(stream, faithful, tempering)
            stack.enter_context(options.cancellation.reaching(*streams.all))
            yield streams

    def _open_stream(
        self,
        stack: ExitStack,
        engine: Engine,
        model: str,
        *,
        key_id: int | None = None,
        beside: Stream | None = None,
    ) -> Stream:
        s_per_px = self.seconds_per_px.get(model, USUAL_S_PER_PX)
        stream = self.scheduler.open_stream(engine, key_id, beside=beside, s_per_px=s_per_px)
        return stack.enter_context(stream)
