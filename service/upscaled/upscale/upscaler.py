"""Python API: upscale arrays, Pillow images, encoded bytes and files, without HTTP.

    from upscaled import Upscaler

    with Upscaler() as up:
        large = up.upscale(image, scale=4)

Everything else of the product goes through the same `upscaled.upscale.core`.
"""

import asyncio
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Literal, Self, Unpack, overload

from upscaled.config import SCALES, Settings, load_settings
from upscaled.upscale.any_image import (
    AnyImage,
    CallOptions,
    ImageOptions,
    OnProgress,
    decide_file_output,
    name_result_file,
    plan_call,
    upscale_any,
    upscale_file_bytes,
)
from upscaled.upscale.concurrency import Cancellation
from upscaled.upscale.core import Core
from upscaled.upscale.model_choice import AUTO
from upscaled.upscale.opening import open_core
from upscaled.upscale.result import Result
from upscaled_models.files import write_atomically


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

    def upscale(self, image: AnyImage, scale: int = 4, **options: Unpack[CallOptions]) -> AnyImage:
        """Upscale one image; the result is of the same kind.

        Args:
            image: an array `[h, w]` or `[h, w, c]` of uint8 or uint16 (c is 1 grey, 2 grey and
                alpha, 3 RGB, 4 RGB and alpha), a Pillow image, or the bytes of a file.
            scale: 2 or 4.
            options: `model`, `denoise`, `on_progress` and `cancellation`, see `CallOptions`;
                `max_side_px`, `width_px` and `height_px` of the result, and of bytes also
                `format`, `quality` and `metadata`, see `OutputOptions`.

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
        core = self._require_core()
        result: AnyImage = upscale_any(core, plan_call(core, image, scale, options))
        return result

    def upscale_bytes(
        self, source: bytes, scale: int = 4, **options: Unpack[CallOptions]
    ) -> Result:
        """Upscale an encoded image; arguments and errors as of `upscale`.

        Returns:
            the encoded result with its media type, its size, the model and the seconds it took.
        """
        core = self._require_core()
        call = plan_call(core, source, scale, options)
        return upscale_file_bytes(core, call, decide_file_output(core, call))

    def upscale_file(
        self,
        path: str | Path,
        to: str | Path | None = None,
        scale: int = 4,
        **options: Unpack[CallOptions],
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
        core = self._require_core()
        path = Path(path)
        call = plan_call(core, path.read_bytes(), scale, options)
        output = decide_file_output(core, call)
        target = name_result_file(path, Path(to) if to is not None else path.parent, scale, output)
        write_atomically(target, upscale_file_bytes(core, call, output).data)
        return target

    @overload
    def many(
        self,
        images: Iterable[AnyImage],
        scale: int = 4,
        *,
        return_exceptions: Literal[False] = False,
        **options: Unpack[ImageOptions],
    ) -> Iterator[AnyImage]: ...

    @overload
    def many(
        self,
        images: Iterable[AnyImage],
        scale: int = 4,
        *,
        return_exceptions: Literal[True],
        **options: Unpack[ImageOptions],
    ) -> Iterator[AnyImage | Exception]: ...

    def many(
        self,
        images: Iterable[AnyImage],
        scale: int = 4,
        *,
        return_exceptions: bool = False,
        **options: Unpack[ImageOptions],
    ) -> Iterator[AnyImage | Exception]:
        """Upscale many images, several at once, and yield their results in order.

        Images are drawn as others are finished, so there may be any number of them. Arguments and
        errors are those of `upscale`. Leaving the loop early cancels what is in flight.

        Args:
            return_exceptions: yield an image's error in its place, instead of raising it.
        """
        cancellation = Cancellation()
        call_options = CallOptions(**options, cancellation=cancellation, on_progress=None)
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
                tasks.append(self._submit(image, scale, call_options))
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
        on_progress: OnProgress | None = None,
        **options: Unpack[ImageOptions],
    ) -> AnyImage:
        """Upscale one image without blocking the event loop; `asyncio.gather` runs several.

        Cancelling the task cancels the work. `on_progress` is called in the event loop. Arguments
        and errors are otherwise those of `upscale`.
        """
        loop = asyncio.get_running_loop()
        cancellation = Cancellation()

        def report(done: int, total: int) -> None:
            if on_progress is not None:
                with suppress(RuntimeError):  # the loop was closed meanwhile
                    loop.call_soon_threadsafe(on_progress, done, total)

        call_options = CallOptions(**options, cancellation=cancellation, on_progress=report)
        task = self._submit(image, scale, call_options)
        try:
            return await asyncio.wrap_future(task)
        except asyncio.CancelledError:
            cancellation.cancel()
            raise

    def _submit(self, image: AnyImage, scale: int, options: CallOptions) -> "Future[AnyImage]":
        core = self._require_core()
        call = plan_call(core, image, scale, options)
        return self._threads.submit(upscale_any, core, call)

    def _require_core(self) -> Core:
        if self._core is None:
            raise RuntimeError("the upscaler is not open: use it in a `with` block, or call open()")
        if self._process_id != os.getpid():  # whose threads a fork does not have
            raise RuntimeError("the upscaler was opened in another process: open one in each")
        return self._core
