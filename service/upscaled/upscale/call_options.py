"""Check the options of a call of the Python API: the model, the result, progress and cancelling."""

import asyncio
import operator
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from numbers import Real
from typing import TypedDict

from upscaled.config import Settings
from upscaled.errors import InvalidParameter
from upscaled.image.output import MAX_QUALITY, OutputChoice
from upscaled.upscale.concurrency import Cancellation
from upscaled.upscale.model_choice import AUTO
from upscaled.upscale.named_models import name_denoised
from upscaled.upscale.result import MAX_RESULT_SIDE_PX
from upscaled_models.errors import ModelRefused

OnProgress = Callable[[int, int], None]


class OutputOptions(TypedDict, total=False):
    """Type of a dict of options of a result: `up.upscale(photo, **options)`.

    Their meanings and ranges are those of the arguments of `Upscaler.upscale`.
    """

    format: str
    quality: int
    max_side_px: int
    width_px: int
    height_px: int
    metadata: str


@dataclass(frozen=True, slots=True)
class ImageOptions:
    """Options of an image, unchecked, in the order of the arguments of `Upscaler.upscale`."""

    model: str | None = None
    denoise: float | None = None
    format: str | None = None
    quality: int | None = None
    max_side_px: int | None = None
    width_px: int | None = None
    height_px: int | None = None
    metadata: str | None = None

    def name_model(self, settings: Settings, scale: int) -> str:
        """Return the name of the model, "" for the upscaler's own, at the strength of `denoise`.

        Raises:
            InvalidParameter: `denoise` is not from 0 to 1, or the model has no such strength.
            TypeError: `model` is no text.
        """
        _require_kind("model", self.model, str, "the name of a model")
        model = "" if self.model in (None, AUTO) else self.model or ""
        if self.denoise is None:
            return model
        strength = _as_number(self.denoise)
        if strength is None or not 0 <= strength <= 1:
            raise InvalidParameter(f"denoise {self.denoise!r}: must be a number from 0 to 1")
        try:
            return name_denoised(settings, scale, model, strength)
        except ModelRefused as error:
            raise InvalidParameter(f"denoise: {error}") from None

    def choose_output(self) -> OutputChoice:
        """Return the choice of a result that the options make, or raise InvalidParameter."""
        try:
            choice = OutputChoice(
                format="" if self.format is None else self.format,
                quality=_read_number("quality", self.quality, MAX_QUALITY),
                max_side_px=_read_number("max_side_px", self.max_side_px, MAX_RESULT_SIDE_PX),
                width_px=_read_number("width_px", self.width_px, MAX_RESULT_SIDE_PX),
                height_px=_read_number("height_px", self.height_px, MAX_RESULT_SIDE_PX),
                metadata="" if self.metadata is None else self.metadata,
            )
        except ValueError as error:
            raise InvalidParameter(str(error)) from None
        if choice.quality is not None and not choice.has_quality:
            raise InvalidParameter(f"quality: {choice.format} has no quality")
        return choice


def require_no_file_options(choice: OutputChoice) -> None:
    """Raise InvalidParameter for what arrays and pictures in memory do not have."""
    if choice.format or choice.quality is not None or choice.metadata:
        raise InvalidParameter("format, quality, metadata are those of a file, not of pixels")


@dataclass(frozen=True, slots=True)
class Tracking:
    """How a call's work is followed and cancelled, as arguments of `Upscaler.upscale`."""

    on_progress: OnProgress | None = None
    cancellation: Cancellation | None = None

    def __post_init__(self) -> None:
        """Raise TypeError for what cannot be called, or is no `Cancellation`."""
        if self.on_progress is not None:
            _require_function("on_progress", self.on_progress, "(done, total)")
        _require_kind("cancellation", self.cancellation, Cancellation, "a Cancellation")

    def reporting_in(self, loop: asyncio.AbstractEventLoop) -> "Tracking":
        """Return a copy whose `on_progress` may be called by any thread, and runs in the loop."""
        on_progress = self.on_progress
        if on_progress is None:
            return self

        def report(done: int, total: int) -> None:
            with suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(on_progress, done, total)

        return Tracking(report, self.cancellation)


def as_whole_number(value: object) -> int | None:
    """Return a whole number of Python or numpy as an int; None for anything else, also a bool."""
    try:
        return None if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return None


def _as_number(value: object) -> float | None:
    """Return a number of Python or numpy as a float; None for anything else, also a bool."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    return float(value)


def _read_number(name: str, value: object, most: int) -> int | None:
    if value is None:
        return None
    number = as_whole_number(value)
    if number is None or not 1 <= number <= most:
        raise InvalidParameter(f"{name} must be a whole number from 1 to {most}")
    return number


def _require_kind(name: str, value: object, kind: type, meaning: str) -> None:
    if value is not None and not isinstance(value, kind):
        raise TypeError(f"{name} must be {meaning}, not {type(value).__name__}")


def _require_function(name: str, value: object, arguments: str) -> None:
    if not callable(value):
        raise TypeError(f"{name} must be a function of {arguments}, not {type(value).__name__}")
