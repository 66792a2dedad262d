"""Upscale one file of a batch, from its name to its committed result."""

import hashlib
import json
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Final

from upscaled.batch.discovery import Source
from upscaled.batch.files import BatchAborted, CannotWrite, NotAnImage, refuse_unreadable
from upscaled.batch.journal import Record
from upscaled.batch.outcome import DeviceEstimate, Kind, Listener, Outcome
from upscaled.batch.output_store import ExistingResult, OutputStore, ReservedPath, candidate_names
from upscaled.config import Settings
from upscaled.errors import InternalError, InvalidParameter, ServiceError, UnsupportedImageFormat
from upscaled.image.formats.table import FORMATS, read_header
from upscaled.image.output import MAX_CANVAS_PX, NO_CHOICE, OutputChoice, OutputSpec
from upscaled.image.types import Header
from upscaled.logs import event
from upscaled.upscale.concurrency import Cancellation, Cancelled, WeightedSemaphore
from upscaled.upscale.content import make_tiling
from upscaled.upscale.core import Core
from upscaled.upscale.model_choice import Rung, rungs_for
from upscaled.upscale.named_models import find_denoise
from upscaled.upscale.result import MAX_RESULT_SIDE_PX, Result, decide_local_output
from upscaled.upscale.tile_request import USUAL_S_PER_PX
from upscaled_models.errors import EngineOutOfMemory
from upscaled_models.store import ModelStore

_log = logging.getLogger(__name__)
FORMAT: Final = 1
"""Version of the way from source to result: where it changes, every result is made again."""

TEMPERING_FORMAT: Final = 1
"""Version of tempering and of the measuring of harm: where either changes, what depends on it is
made again."""

_SUFFIXES: Final = frozenset(f".{name}" for each in FORMATS.values() for name in each.suffixes)


@dataclass(frozen=True, slots=True)
class FileUpscaler:
    """Upscales files at one scale, for any number of threads; each tile is reported to `listener`.

    choice: the wishes for all results. suffix: of their names, in place of "-x4". target:
    the result's file, where there is one picture. is_dry: work out what would be done, no more.
    """

    core: Core
    scale: int
    store: OutputStore
    listener: Listener
    cancellation: Cancellation
    choice: OutputChoice = NO_CHOICE
    suffix: str = ""
    target: Path | None = None
    is_dry: bool = False
    pixels: WeightedSemaphore = field(default_factory=lambda: WeightedSemaphore(MAX_CANVAS_PX))

    @property
    def max_in_flight(self) -> int:
        """Return how many files keep the device at work, while others are decoded and written."""
        return max(self.core.settings.jobs_per_worker, self.core.max_in_flight)

    def work(self, source: Source) -> Outcome:
        """Upscale one file. Its own failure is its outcome and is never raised.

        Raises:
            Cancelled: the batch was stopped; nothing is left of this file's work.
            BatchAborted: no further file can be worked on, read or written.
        """
        started = time.perf_counter()
        name = str(source.file)
        outcome = Outcome(name, Kind.FAILED)
        try:
            outcome = self._work(source, name)
        except NotAnImage:
            outcome = replace(outcome, kind=Kind.PASSED_OVER)
        except UnsupportedImageFormat as error:
            outcome = replace(_failed(outcome, error, str(error)), kind=Kind.UNSUPPORTED)
        except ServiceError as error:
            outcome = _failed(outcome, error, str(error))
            if isinstance(error, InternalError):
                self._check_engine()
        except OSError as error:
            refusal = refuse_unreadable(error)
            outcome = _failed(outcome, refusal, refusal.public_text)
        except (CannotWrite, MemoryError, EngineOutOfMemory) as error:
            outcome = _failed(outcome, InternalError(), str(error) or "not enough memory")
        except (Cancelled, BatchAborted):
            raise
        except Exception as error:  # noqa: BLE001  (the fault of this file; the others go on)
            fields = event("file_failed", source=name)
            _log.warning("a file failed with an unexpected error", exc_info=error, extra=fields)
            outcome = _failed(outcome, InternalError(), f"{type(error).__name__}: {error}")
        return replace(outcome, seconds=time.perf_counter() - started)

    def _work(self, source: Source, name: str) -> Outcome:
        if source.error is not None:
            raise source.error
        if not source.is_named and self.store.output.holds(name):
            raise NotAnImage
        settings = self.core.settings
        is_expected = source.is_named or _is_named_like_an_image(source.file.name)
        data = source.file.read(settings.formats, is_any=is_expected)
        header = read_header(data, settings.formats)
        output = decide_local_output(
            header, self.scale, keeps_depth=settings.deep_png, choice=self.choice
        )
        outcome = Outcome(
            name,
            Kind.SKIPPED,
            source_bytes=len(data),
            source_px=(header.width_px, header.height_px),
        )
        reservation = self.store.reserve(
            name,
            hashlib.sha256(data).digest(),
            self._fingerprint(header, output),
            self._find_paths(source, name, output),
        )
        if isinstance(reservation, ExistingResult):
            return replace(outcome, result=reservation.target, record=reservation.record)
        if self.is_dry:
            return self._expect(reservation, header, output, outcome)
        try:
            return self._fill(reservation, data, output, outcome)
        except BaseException:
            self.store.release(reservation)
            raise

    def _expect(
        self, reservation: ReservedPath, header: Header, output: OutputSpec, outcome: Outcome
    ) -> Outcome:
        """Return the outcome that the file would have; its path stays reserved."""
        outcome = replace(
            outcome, result=reservation.target, expected_px=(output.width_px, output.height_px)
        )
        content = reservation.source_sha256, reservation.fingerprint
        if self.store.output.find_identical(*content):
            return replace(outcome, kind=Kind.COPIED)
        expected = expect_upscale(self.core, header, self.scale, output)
        return replace(outcome, kind=Kind.UPSCALED, expected=expected)

    def _find_paths(self, source: Source, name: str, output: OutputSpec) -> Iterator[PurePath]:
        """Find the paths that the result may have; another picture's at the only one is refused."""
        if self.target is not None:
            yield self.target.relative_to(self.target.anchor)
            raise InvalidParameter(f"{self.target} is the result of another picture")
        folder = self.store.output.folder_of(name, source.folder)
        for end in candidate_names(source.file.name, self.scale, output.suffix, self.suffix):
            yield folder / end

    def _fill(
        self, reservation: ReservedPath, data: bytes, output: OutputSpec, outcome: Outcome
    ) -> Outcome:
        """Commit what the network makes of the file, or a copy of what it made before."""
        content = reservation.source_sha256, reservation.fingerprint
        if identical := self.store.output.find_identical(*content):
            record, result = identical
            outcome = replace(outcome, kind=Kind.COPIED)
        else:
            upscaled = self._upscale(outcome.source, data, output)
            record, result = _describe(upscaled, *content), upscaled.data
            outcome = replace(outcome, kind=Kind.UPSCALED, timings=upscaled.timings)
        record = self.store.commit(reservation, record, result)
        return replace(outcome, result=reservation.target, record=record)

    def _upscale(self, name: str, data: bytes, output: OutputSpec) -> Result:
        def on_tile(done: int, total: int) -> None:
            self.listener.on_part(name, done / total if total else 1.0)

        with self.pixels.hold(output.canvas_px):
            return self.core.upscale(
                data, self.scale, on_tile=on_tile, cancellation=self.cancellation, output=output
            )

    def _fingerprint(self, header: Header, output: OutputSpec) -> bytes:
        """Fingerprint all that the file's result depends on beside its content."""
        px = header.width_px * header.height_px
        rungs = rungs_for(self.core.ladders[self.scale], px, is_deep=output.is_deep)
        return fingerprint(self.core.settings, self.scale, rungs, self.choice)

    def _check_engine(self) -> None:
        """End the batch if the engine fails at everything, as after some errors of a device."""
        try:
            self.core.check_engines()
        except Exception as error:
            models = ", ".join(self.core.models.loaded())
            raise BatchAborted(f"{models} no longer works: {error}") from error


def _is_named_like_an_image(name: str) -> bool:
    """Return whether a file that is no image is a damaged one, and no text or film beside images.

    An empty `.jpg` of a copy that broke off would be passed over without a word.
    """
    return PurePath(name).suffix.lower() in _SUFFIXES


def _describe(upscaled: Result, source_sha256: bytes, fingerprint: bytes) -> Record:
    return Record(
        source_sha256=source_sha256,
        fingerprint=fingerprint,
        sha256=hashlib.sha256(upscaled.data).digest(),
        size_bytes=len(upscaled.data),
        mtime_ns=0,
        width_px=upscaled.width_px,
        height_px=upscaled.height_px,
        model=upscaled.model,
    )


def _failed(outcome: Outcome, error: ServiceError, text: str) -> Outcome:
    return replace(outcome, kind=Kind.FAILED, error_code=error.error_code, error=text)


def expect_upscale(core: Core, header: Header, scale: int, output: OutputSpec) -> DeviceEstimate:
    """Return the expected seconds of upscaling an image on a core that was opened warm."""
    px = header.width_px * header.height_px
    rungs = rungs_for(core.ladders[scale], px, is_deep=output.is_deep)
    return DeviceEstimate(
        models=tuple(rung.model for rung in rungs),
        device_s=max(_expect_device_s(core, header, rung) for rung in rungs),
    )


def _expect_device_s(core: Core, header: Header, rung: Rung) -> float:
    models = filter(None, (rung.model, rung.tempered_with))
    return sum(_count_window_px(core, header, model) * _s_per_px(core, model) for model in models)


def _s_per_px(core: Core, model: str) -> float:
    return core.seconds_per_px.get(model, USUAL_S_PER_PX)


def _count_window_px(core: Core, header: Header, model: str) -> int:
    """Return the pixels of all windows that a network sees of an image, halos included."""
    with core.models.use(model) as engine:
        info = engine.info
    tiling = make_tiling(info, info.spec.halo_px, info.window_px)
    return tiling.count_px(header.height_px, header.width_px)


def fingerprint(
    settings: Settings, scale: int, rungs: Sequence[Rung], choice: OutputChoice = NO_CHOICE
) -> bytes:
    """Return a SHA-256 of the settings and weights behind a result, equal where it would be equal.

    How large pictures may be for a model on a machine is not in it, nor the number type that
    `precision` came to there, but the models that the source may come to (`rungs`): a batch that
    moves to another machine goes on there with the pictures that the same model would make.
    """
    find = ModelStore(settings.models_dir).find
    first, *others = rungs
    spec = find(first.model)
    inputs: dict[str, object] = {
        "format": FORMAT,
        "scale": scale,
        "model": spec.name,
        "weights": spec.hashes,
        "denoise": find_denoise(settings, spec) if spec.wdn else None,
        "precision": settings.precision,
        "jpeg_quality": settings.jpeg_quality,
        "colour_lock": settings.colour_lock,
        "keep_copyright": settings.keep_copyright,
        "deep_png": settings.deep_png,
        "max_result_side_px": MAX_RESULT_SIDE_PX,
    }
    if others or first.tempered_with:
        inputs["temper"] = settings.temper
        inputs["tempering_format"] = TEMPERING_FORMAT
        inputs["rungs"] = [
            [
                rung.harmed_only,
                *(find(name).hashes for name in (rung.model, rung.tempered_with) if name),
            ]
            for rung in rungs
        ]
    if choice != NO_CHOICE:
        inputs["choice"] = choice.changes()
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).digest()
