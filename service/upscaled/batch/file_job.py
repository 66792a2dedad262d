"""Upscale one file of a batch, from its name to its committed result."""

import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from upscaled.batch.discovery import Source
from upscaled.batch.files import CannotWrite, NotAnImage, read_source, refuse_unreadable
from upscaled.batch.fingerprint import fingerprint
from upscaled.batch.in_flight import PixelSemaphore, Stop
from upscaled.batch.journal import Journal, JournalUnusable, Made
from upscaled.batch.naming import candidate_names
from upscaled.batch.outcome import BatchAborted, Kind, Outcome
from upscaled.batch.output_store import ExistingResult, OutputStore, Reservation
from upscaled.config import Settings
from upscaled.errors import (
    InternalError,
    ResolutionTooHigh,
    ServiceError,
    UnsupportedImageFormat,
)
from upscaled.image.header import read_header
from upscaled.image.output import MAX_CANVAS_PX, OutputSpec, decide_output
from upscaled.image.types import Header
from upscaled.upscale.cancellation import Cancelled
from upscaled.upscale.core import Core, open_core
from upscaled.upscale.model_choice import rungs_for
from upscaled.upscale.result import MAX_RESULT_SIDE_PX, Result
from upscaled_models.backends.base import Engine
from upscaled_models.errors import EngineOutOfMemory
from upscaled_models.store import ModelStore

OnPart = Callable[[Path, float], None]

_log = logging.getLogger(__name__)


class EngineBroken(BatchAborted):
    """The device or its network fails, whatever it is given."""


@dataclass(frozen=True, slots=True)
class FileUpscaler:
    """All that working on a file takes; any number of threads may.

    on_part: hears, from any thread, what part of
    a file's tiles is done, 0 to 1.
    """

    upscaler: Core
    settings: Settings
    scale: int
    store: OutputStore
    stop: Stop
    pixels: PixelSemaphore
    on_part: OnPart | None = None

    def work(self, source: Source) -> Outcome:
        """Upscale one file. Its own failure is its outcome and is never raised.

        Raises:
            Cancelled: the batch was stopped; nothing is left of this file's work.
            BatchAborted: no further file can be worked on: nothing goes through the network any
                more (`EngineBroken`), no result can be written, or the journal fails.
        """
        started = time.perf_counter()
        path = Path(os.path.abspath(source.path))
        outcome = Outcome(path, Kind.FAILED)
        try:
            outcome = self._work(source, path)
        except NotAnImage:
            outcome = replace(outcome, kind=Kind.PASSED_OVER)
        except UnsupportedImageFormat as error:
            outcome = replace(_failed(outcome, error, str(error)), kind=Kind.UNSUPPORTED)
        except ServiceError as error:
            outcome = _failed(outcome, error, str(error))
            if isinstance(error, InternalError):
                self._prove_engine()
        except OSError as error:
            refusal = refuse_unreadable(error)
            outcome = _failed(outcome, refusal, refusal.public_text)
        except (CannotWrite, MemoryError, EngineOutOfMemory) as error:
            outcome = _failed(outcome, InternalError(), str(error) or "not enough memory")
        except (Cancelled, BatchAborted):
            raise
        except Exception as error:  # noqa: BLE001  (the fault of this file; the others go on)
            _log.warning("%s", path, exc_info=error)
            outcome = _failed(outcome, InternalError(), f"{type(error).__name__}: {error}")
        return replace(outcome, seconds=time.perf_counter() - started)

    def _work(self, source: Source, path: Path) -> Outcome:
        if source.trouble is not None:
            raise source.trouble
        if not source.is_named and self.store.holds(path):
            raise NotAnImage(path)
        data = read_source(path, self.settings.formats, is_any=source.is_named)
        header = read_header(data, self.settings.formats)
        outcome = Outcome(
            path,
            Kind.SKIPPED,
            source_bytes=len(data),
            source_px=(header.width_px, header.height_px),
        )
        self._refuse_too_large(header)
        content = hashlib.sha256(data).digest()
        output = decide_output(
            header,
            self.scale,
            keeps_depth=self.settings.deep_png,
            max_side_px=MAX_RESULT_SIDE_PX,
        )
        names = self._names(source, path, output)
        mark = self._fingerprint(header, output)
        reservation = self.store.reserve(path, content, mark, names)
        if isinstance(reservation, ExistingResult):
            return _of_made(replace(outcome, result=reservation.target), reservation.made)
        try:
            outcome = replace(outcome, result=reservation.target)
            return self._fill(reservation, data, content, mark, output, outcome)
        except BaseException:
            with suppress(JournalUnusable):  # the next run clears the row away
                self.store.release(reservation)
            raise

    def _fill(
        self,
        reservation: Reservation,
        data: bytes,
        content: bytes,
        mark: bytes,
        output: OutputSpec,
        outcome: Outcome,
    ) -> Outcome:
        """Commit what the network makes of the file, or a copy of what it made before."""
        if alike := self.store.find_identical(content, mark):
            made, result = alike
            outcome = replace(outcome, kind=Kind.COPIED)
        else:
            upscaled = self._upscale(outcome.source, data, output)
            made, result = _describe(upscaled, content, mark), upscaled.data
            outcome = replace(
                outcome,
                kind=Kind.UPSCALED,
                decode_s=upscaled.timings.decode_s,
                network_s=upscaled.timings.network_s,
                encode_s=upscaled.timings.encode_s,
            )
        made = replace(made, mtime_ns=self.store.write(reservation, result))
        self.store.commit(reservation, made)
        return _of_made(outcome, made)

    def _upscale(self, path: Path, data: bytes, output: OutputSpec) -> Result:
        def on_tile(done: int, total: int) -> None:
            if self.on_part is not None:
                self.on_part(path, done / max(1, total))

        with self.pixels.hold(output.canvas_px), self.stop.reaching() as cancellation:
            return self.upscaler.upscale(
                data,
                self.scale,
                on_tile=on_tile,
                cancellation=cancellation,
                output=output,
            )

    def _fingerprint(self, header: Header, output: OutputSpec) -> bytes:
        """Fingerprint all that the file's result depends on beside its content."""
        ladder = self.upscaler.ladders[self.scale]
        px = header.width_px * header.height_px
        rungs = rungs_for(ladder, px, is_deep=output.is_deep)
        find = ModelStore(self.settings.models_dir).find
        return fingerprint(self.settings, self.scale, rungs, find)

    def _prove_engine(self) -> None:
        """After some errors of a device every further call fails: then no file need be tried."""
        try:
            self.upscaler.prove()
        except Exception as error:
            models = ", ".join(self.upscaler.models.loaded())
            raise EngineBroken(f"{models} works no more: {error}") from error

    def _refuse_too_large(self, header: Header) -> None:
        if max(header.width_px, header.height_px) * self.scale > MAX_RESULT_SIDE_PX:
            raise ResolutionTooHigh(
                f"{header.width_px} x {header.height_px} px would become longer than "
                f"{MAX_RESULT_SIDE_PX} px at scale {self.scale}"
            )

    def _names(self, source: Source, path: Path, output: OutputSpec) -> Iterator[PurePath]:
        folder = self.store.place_of(path, source.place)
        return (folder / name for name in candidate_names(path.name, self.scale, output.suffix))


@contextmanager
def open_file_upscaler(
    scale: int,
    settings: Settings,
    journal: Journal,
    output_dir: Path | None,
    stop: Stop,
    *,
    is_overwriting: bool,
    on_part: OnPart | None = None,
    open_engine: Callable[[str], Engine] | None = None,
    asked_by: str | None = None,
) -> Iterator[FileUpscaler]:
    """Open a `FileUpscaler` for one batch, after cleaning up what an interrupted run left.

    Args:
        open_engine, asked_by: as of `upscaled.upscale.core.open_core`.

    Raises:
        as `open_core`.
    """
    with ExitStack() as stack:
        store = stack.enter_context(OutputStore(output_dir, journal, is_overwriting=is_overwriting))
        upscaler = stack.enter_context(
            open_core(settings, scales=(scale,), open_engine=open_engine, asked_by=asked_by)
        )
        yield FileUpscaler(
            upscaler=upscaler,
            settings=settings,
            scale=scale,
            store=store,
            stop=stop,
            pixels=PixelSemaphore(MAX_CANVAS_PX),
            on_part=on_part,
        )


def _describe(upscaled: Result, content: bytes, mark: bytes) -> Made:
    return Made(
        source_sha256=content,
        fingerprint=mark,
        sha256=hashlib.sha256(upscaled.data).digest(),
        size_bytes=len(upscaled.data),
        mtime_ns=0,
        width_px=upscaled.width_px,
        height_px=upscaled.height_px,
        model=upscaled.model,
    )


def _failed(outcome: Outcome, error: ServiceError, text: str) -> Outcome:
    return replace(outcome, kind=Kind.FAILED, error_code=error.error_code, error=text)


def _of_made(outcome: Outcome, made: Made | None) -> Outcome:
    if made is None:
        return outcome
    return replace(
        outcome,
        model=made.model,
        result_bytes=made.size_bytes,
        result_px=(made.width_px, made.height_px),
    )
