"""Check the options of a call of the Python API: the model, the result, progress and cancelling."""

import asyncio
import operator
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from numbers import Real
from typing import TypedDict, get_type_hints

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
    """Options of a result, as a dict: `up.upscale(photo, **options)`. None: as if left out.

    Their meanings and ranges are those of the arguments of `Upscaler.upscale`.
    """

    format: str | None
    quality: int | None
    max_side_px: int | None
    width_px: int | None
    height_px: int | None
    metadata: str | None


class ImageOptions(OutputOptions, total=False):
    """Options of an image: of its result, and of the model that makes it."""

    model: str | None
    denoise: float | None


def check_options(options: ImageOptions) -> None:
    """Raise TypeError for an option that there is not, as Python does for an argument."""
    if unknown := [name for name in options if name not in get_type_hints(ImageOptions)]:
        raise TypeError(f"got an unexpected keyword argument {unknown[0]!r}")


def name_model(options: ImageOptions, settings: Settings, scale: int) -> str:
    """Return the name of the model, "" for the upscaler's own, at the strength of `denoise`.

    Raises:
        InvalidParameter: `denoise` is not from 0 to 1, or the model has no such strength.
        TypeError: `model` is no text.
    """
    named, denoise = options.get("model"), options.get("denoise")
    _require_kind("model", named, str, "the name of a model")
    model = "" if named in (None, AUTO) else named or ""
    if denoise is None:
        return model
    strength = _as_number(denoise)
    if strength is None or not 0 <= strength <= 1:
        raise InvalidParameter(f"denoise {denoise!r}: must be a number from 0 to 1")
    try:
        return name_denoised(settings, scale, model, strength)
    except ModelRefused as error:
        raise InvalidParameter(f"denoise: {error}") from None


def choose_output(options: OutputOptions) -> OutputChoice:
    """Return the choice of a result that the options make, or raise InvalidParameter."""
    try:
        choice = OutputChoice(
            format=_or_none_chosen(options.get("format")),
            quality=_read_number("quality", options.get("quality"), MAX_QUALITY),
            max_side_px=_read_side("max_side_px", options.get("max_side_px")),
            width_px=_read_side("width_px", options.get("width_px")),
            height_px=_read_side("height_px", options.get("height_px")),
            metadata=_or_none_chosen(options.get("metadata")),
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
        _require_kind("on_progress", self.on_progress, Callable, "a function of (done, total)")
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


def _or_none_chosen(value: str | None) -> str:
    """Return a choice, "" where there is none; what is no text is left to be refused."""
    return "" if value is None else value


def _read_side(name: str, value: object) -> int | None:
    return _read_number(name, value, MAX_RESULT_SIDE_PX)


def _require_kind(name: str, value: object, kind: object, meaning: str) -> None:
    if value is not None and not isinstance(value, kind):  # type: ignore[arg-type]
        raise TypeError(f"{name} must be {meaning}, not {type(value).__name__}")
