"""Python API: upscale arrays, Pillow images, encoded bytes and files, without HTTP.

    from upscaled import Upscaler

    with Upscaler() as up:
        large = up.upscale(image, scale=4)

Everything else of the product goes through the same `upscaled.upscale.core`.
"""

import asyncio
import operator
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self, TypeVar, Unpack, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from upscaled.config import SCALES, Settings, load_settings
from upscaled.errors import InvalidParameter
from upscaled.image.formats.table import read_header
from upscaled.image.output import OutputSpec
from upscaled.upscale.concurrency import Cancellation
from upscaled.upscale.conversion import (
    OutputOptions,
    read_array,
    read_options,
    read_pillow,
    write_pillow,
)
from upscaled.upscale.core import Core
from upscaled.upscale.model_choice import AUTO
from upscaled.upscale.named_models import name_denoised
from upscaled.upscale.opening import open_core
from upscaled.upscale.result import Result, decide_local_output
from upscaled_models.errors import ModelRefused
from upscaled_models.files import write_atomically

AnyImage = TypeVar("AnyImage", bytes, NDArray[np.uint8], NDArray[np.uint16], PillowImage.Image)
OnProgress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class _Work:
    """One image, of any of the kinds of `AnyImage`, and the arguments of `Upscaler.upscale`."""

    image: Any
    scale: int
    model: str
    options: OutputOptions
    cancellation: Cancellation | None = None
    on_progress: OnProgress | None = None


class Upscaler:
    """Upscales images on this machine; any number of threads may use one at once.

    Use it as a context manager, or call `open` and `close`, in the process that upscales: a fork of
    it needs an upscaler of its own. Models are loaded when it is opened;
    the first time on a machine their fastest way to run is measured, which takes about a minute.
    While it is open, OpenCV and torch use as many threads in this process as suit the device.
    """

    def __init__(
        self,
        model: str = AUTO,
        device: str = AUTO,
        *,
        data_dir: str | Path | None = None,
        scales: tuple[int, ...] = SCALES,
        max_in_flight: int = 0,
        **settings: object,
    ) -> None:
        """Choose the model, the device and other settings; `open` loads what they need.

        Args:
            model: a model by its name, or `auto`: the best one that this machine can afford,
                image by image.
            device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
            data_dir: the folder of fetched models and of measurements; None: the service's own,
                `~/.local/share/upscaled`.
            scales: the scales that will be asked for, whose models are loaded at once.
            max_in_flight: most images that `many` and `upscale_async` work on at once; 0: as
                suits the device. Each holds its source and its result in memory.
            settings: other settings by their names without `UPSCALED_`, in lower case, such as
                `precision="exact"` or `jpeg_quality=90`. Environment variables are not read.

        Raises:
            SettingsError: a value out of range, or an unknown setting.
        """
        if data_dir is not None:
            settings["data_dir"] = Path(data_dir)
        self._settings = load_settings(
            {}, model_x2=model, model_x4=model, device=device, **settings
        )
        self._named_by: str | None = "model"
        self._scales = scales
        self._max_in_flight = max_in_flight
        self._stack = ExitStack()
        self._core: Core | None = None
        self._process_id = 0
        self._threads = ThreadPoolExecutor(1)

    @classmethod
    def from_settings(cls, settings: Settings, *, scales: tuple[int, ...] = SCALES) -> Self:
        """Make an upscaler with the service's settings, as of `upscaled.config.load_settings`."""
        upscaler = cls(scales=scales)
        upscaler._settings = settings
        upscaler._named_by = None
        return upscaler

    def open(self) -> Self:
        """Load the models and start the threads; does nothing where that is done.

        Raises:
            SettingsError: a device or a model that is not here.
            ModelError: an unknown model, or a weights file that cannot be used.
        """
        if self._core is not None:
            return self
        with ExitStack() as stack:
            core = stack.enter_context(
                open_core(self._settings, scales=self._scales, decoders=0, named_by=self._named_by)
            )
            self._max_in_flight = self._max_in_flight or core.max_in_flight
            self._threads = stack.enter_context(
                ThreadPoolExecutor(self._max_in_flight, thread_name_prefix="upscale")
            )
            self._core, self._stack = core, stack.pop_all()
            self._process_id = os.getpid()
        return self

    def close(self) -> None:
        """Finish what is in flight, end all threads and processes, and free the models.

        In a fork of the process that opened it, it only lets go of them: they are not its own.
        """
        if self._core is not None and self._process_id != os.getpid():
            self._stack.pop_all()
        self._core = None
        self._stack.close()

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(self, *_: object) -> None:
        self.close()

    def upscale(
        self,
        image: AnyImage,
        scale: int = 4,
        *,
        model: str = "",
        denoise: float | None = None,
        on_progress: OnProgress | None = None,
        cancellation: Cancellation | None = None,
        **options: Unpack[OutputOptions],
    ) -> AnyImage:
        """Upscale one image; the result is of the same kind.

        Args:
            image: an array `[h, w]` or `[h, w, c]` of uint8 or uint16 (c is 1 grey, 2 grey and
                alpha, 3 RGB, 4 RGB and alpha), a Pillow image, or the bytes of a file.
            scale: 2 or 4.
            model: another model than the upscaler's, by its name.
            denoise: of `realesr-general-x4v3`, where `model` or the upscaler names it: from 1,
                which removes noise most, to 0, which keeps it; rounded to a tenth. None: as the
                upscaler's own `denoise` says. Several strengths may be in memory at once.
            on_progress: called with (tiles done, all tiles), before the first tile and after each.
            cancellation: cancels the work from another thread.
            options: `max_side_px`, `width_px` and `height_px` of the result, and of bytes also
                `format`, `quality` and `metadata`; see `OutputOptions`.

        Raises:
            InvalidParameter: the scale, the model, the array or an option cannot be used, or the
                model has no strength of denoising.
            MalformedImage, UnsupportedImageFormat: the file is damaged, or of another format.
            ResolutionTooHigh: the result would be longer than `MAX_RESULT_SIDE_PX`.
            Cancelled: by `cancellation`.
            InternalError, EngineOutOfMemory: the device failed, or has too little memory.
            TypeError: `image` is of none of these kinds.
            RuntimeError: it is not open, or was opened in the process that this one is a fork of.
        """
        model = self._name_model(scale, model, denoise)
        work = _Work(image, scale, model, options, cancellation, on_progress)
        result: AnyImage = self._upscale(work)
        return result

    def upscale_bytes(
        self,
        source: bytes,
        scale: int = 4,
        *,
        model: str = "",
        denoise: float | None = None,
        on_progress: OnProgress | None = None,
        cancellation: Cancellation | None = None,
        **options: Unpack[OutputOptions],
    ) -> Result:
        """Upscale an encoded image; arguments and errors as of `upscale`.

        Returns:
            the encoded result with its media type, its size, the model and the seconds it took.
        """
        self._require_core(scale)
        model = self._name_model(scale, model, denoise)
        work = _Work(source, scale, model, options, cancellation, on_progress)
        return self._upscale_source(work, self._decide_output(source, scale, options))

    def upscale_file(
        self,
        path: str | Path,
        to: str | Path | None = None,
        scale: int = 4,
        *,
        model: str = "",
        denoise: float | None = None,
        on_progress: OnProgress | None = None,
        cancellation: Cancellation | None = None,
        **options: Unpack[OutputOptions],
    ) -> Path:
        """Upscale a file into another; arguments and errors as of `upscale`.

        Args:
            to: the result's file, or an existing folder; None: the source's folder. In a folder it
                is called NAME-x4.jpg, or NAME-x4.png where it has alpha or 16 bits a channel; or as
                `format` says.

        Returns:
            the path of the result, which is there whole or not at all.

        Raises:
            InvalidParameter: the name in `to` does not end as the format of the result does.
            OSError: a file cannot be read or written.
        """
        self._require_core(scale)
        path = Path(path)
        source = path.read_bytes()
        output = self._decide_output(source, scale, options)
        target = Path(to) if to is not None else path.parent
        if target.is_dir():
            target /= f"{path.stem}-x{scale}.{output.suffix}"
        elif target.suffix.lower().replace(".jpeg", ".jpg") != f".{output.suffix}":
            raise InvalidParameter(
                f"the result of {path.name} is a {output.format}, not {target.name}"
            )
        model = self._name_model(scale, model, denoise)
        work = _Work(source, scale, model, options, cancellation, on_progress)
        result = self._upscale_source(work, output)
        write_atomically(target, result.data)
        return target

    @overload
    def many(
        self,
        images: Iterable[AnyImage],
        scale: int = 4,
        *,
        model: str = "",
        denoise: float | None = None,
        return_exceptions: Literal[False] = False,
        **options: Unpack[OutputOptions],
    ) -> Iterator[AnyImage]: ...

    @overload
    def many(
        self,
        images: Iterable[AnyImage],
        scale: int = 4,
        *,
        model: str = "",
        denoise: float | None = None,
        return_exceptions: Literal[True],
        **options: Unpack[OutputOptions],
    ) -> Iterator[AnyImage | Exception]: ...

    def many(
        self,
        images: Iterable[AnyImage],
        scale: int = 4,
        *,
        model: str = "",
        denoise: float | None = None,
        return_exceptions: bool = False,
        **options: Unpack[OutputOptions],
    ) -> Iterator[AnyImage | Exception]:
        """Upscale many images, several at once, and yield their results in order.

        Images are drawn as others are finished, so there may be any number of them. Arguments and
        errors are those of `upscale`. Leaving the loop early cancels what is in flight.

        Args:
            return_exceptions: yield an image's error in its place, instead of raising it.
        """
        model = self._name_model(scale, model, denoise)
        cancellation = Cancellation()
        tasks: deque[Future[AnyImage]] = deque()

        def finish_first() -> AnyImage | Exception:
            try:
                return tasks.popleft().result()
            except Exception as error:
                if not return_exceptions:
                    raise
                return error

        try:
            for image in images:
                tasks.append(self._submit(_Work(image, scale, model, options, cancellation)))
                if len(tasks) >= self._max_in_flight:
                    yield finish_first()
            while tasks:
                yield finish_first()
        finally:
            cancellation.cancel()
            for task in tasks:
                task.cancel()

    async def upscale_async(
        self,
        image: AnyImage,
        scale: int = 4,
        *,
        model: str = "",
        denoise: float | None = None,
        on_progress: OnProgress | None = None,
        **options: Unpack[OutputOptions],
    ) -> AnyImage:
        """Upscale one image without blocking the event loop; `asyncio.gather` runs several.

        Cancelling the task cancels the work. `on_progress` is called in the event loop. Arguments
        and errors are otherwise those of `upscale`.
        """
        loop = asyncio.get_running_loop()
        model = self._name_model(scale, model, denoise)
        cancellation = Cancellation()

        def report(done: int, total: int) -> None:
            if on_progress is not None:
                with suppress(RuntimeError):  # the loop was closed meanwhile
                    loop.call_soon_threadsafe(on_progress, done, total)

        task = self._submit(_Work(image, scale, model, options, cancellation, report))
        try:
            return await asyncio.wrap_future(task)
        except asyncio.CancelledError:
            cancellation.cancel()
            raise

    def _submit(self, work: _Work) -> "Future[Any]":
        self._require_core(work.scale)
        return self._threads.submit(self._upscale, work)

    def _upscale(self, work: _Work) -> Any:  # noqa: ANN401  (of the kind of the image)
        image, scale = work.image, work.scale
        core = self._require_core(scale)
        if isinstance(image, bytes | bytearray | memoryview):
            work = replace(work, image=bytes(image))
            output = self._decide_output(work.image, scale, work.options)
            return self._upscale_source(work, output).data
        choice = read_options(work.options, is_file=False)
        if isinstance(image, np.ndarray):
            decoded, shape = read_array(image)
        elif isinstance(image, PillowImage.Image):
            decoded, shape = read_pillow(image)
        else:
            raise TypeError(f"{type(image).__name__} is no array, no Pillow image and no bytes")
        upscaled = core.upscale_image(
            decoded,
            scale,
            decide_local_output(decoded, scale, keeps_depth=True, choice=choice),
            model=work.model,
            on_tile=work.on_progress,
            cancellation=work.cancellation,
        )
        is_array = isinstance(image, np.ndarray)
        return shape.restore(upscaled) if is_array else write_pillow(upscaled, shape)

    def _upscale_source(self, work: _Work, output: OutputSpec) -> Result:
        """Upscale the bytes of a file to the result that was decided for it."""
        return self._require_core(work.scale).upscale(
            work.image,
            work.scale,
            model=work.model,
            on_tile=work.on_progress,
            cancellation=work.cancellation,
            output=output,
        )

    def _name_model(self, scale: int, model: str, denoise: float | None) -> str:
        if denoise is None:
            return model
        if not 0 <= denoise <= 1:
            raise InvalidParameter(f"denoise {denoise}: must be from 0 to 1")
        try:
            return name_denoised(self._settings, scale, model, denoise)
        except ModelRefused as error:
            raise InvalidParameter(f"denoise: {error}") from None

    def _decide_output(self, source: bytes, scale: int, options: OutputOptions) -> OutputSpec:
        choice = read_options(options, is_file=True)
        header = read_header(source, self._settings.formats)
        keeps_depth = self._settings.deep_png
        return decide_local_output(header, scale, keeps_depth=keeps_depth, choice=choice)

    def _require_core(self, scale: int) -> Core:
        if self._core is None:
            raise RuntimeError("the upscaler is not open: use it in a `with` block, or call open()")
        if self._process_id != os.getpid():  # whose threads a fork does not have
            raise RuntimeError("the upscaler was opened in another process: open one in each")
        try:
            is_offered = operator.index(scale) in self._core.ladders
        except TypeError:
            is_offered = False
        if not is_offered:
            scales = " or ".join(map(str, self._core.ladders))
            raise InvalidParameter(f"scale {scale}: must be {scales}")
        return self._core
