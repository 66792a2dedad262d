"""Python API: upscale arrays, Pillow images, encoded bytes and files, without HTTP.

    from upscaled import Upscaler

    with Upscaler() as up:
        large = up.upscale(image, scale=4)

Everything else of the product goes through the same `upscaled.upscale.core`.
"""

import asyncio
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, Self, Unpack, overload

from upscaled.config import SCALES, Settings, SettingsError, load_settings
from upscaled.upscale import any_image
from upscaled.upscale.any_image import AnyImage
from upscaled.upscale.call_options import ImageOptions, OnProgress, Tracking, as_whole_number
from upscaled.upscale.concurrency import Cancellation
from upscaled.upscale.model_choice import AUTO
from upscaled.upscale.opening import open_core
from upscaled.upscale.result import Result
from upscaled.upscale.shared_core import SharedCore
from upscaled_models.files import write_atomically


class Upscaler:
    """Upscales images on this machine; any number of threads may use one at once.

    Use it as a context manager, or call `open` and `close`, in the process that upscales: a fork of
    it needs an upscaler of its own. Models are loaded when it is opened; the first time on a
    machine their fastest way to run is measured, which takes about a minute. While it is open,
    OpenCV and torch use as many threads in this process as suit the device.
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
        if not isinstance(model, str):
            raise SettingsError(f"model={model!r}: must be the name of a model, or auto")
        settings = {"model_x2": model, "model_x4": model, "device": device, **settings}
        self._prepare(load_settings({}, **settings), scales, max_in_flight, named_by="model")

    @classmethod
    def from_settings(cls, settings: Settings, *, scales: tuple[int, ...] = SCALES) -> Self:
        """Make an upscaler with the service's settings, as of `upscaled.config.load_settings`."""
        upscaler = cls.__new__(cls)
        upscaler._prepare(settings, scales)
        return upscaler

    def _prepare(
        self,
        settings: Settings,
        scales: tuple[int, ...],
        max_in_flight: int = 0,
        *,
        named_by: str | None = None,
    ) -> None:
        """Check what the upscaler was made with; `named_by`: as of `open_core`."""
        loaded = tuple(scales) if isinstance(scales, Iterable) else ()
        if not loaded or not all(as_whole_number(scale) in SCALES for scale in loaded):
            raise SettingsError(f"scales={scales!r}: must be some of {SCALES}")
        most = as_whole_number(max_in_flight)
        if most is None or most < 0:
            raise SettingsError(
                f"max_in_flight={max_in_flight!r}: must be a whole number, 0 or more"
            )
        self._settings = settings
        self._scales = tuple(map(int, loaded))
        self._max_in_flight = most
        self._named_by = named_by
        self._shared = SharedCore()

    def open(self) -> Self:
        """Load the models and start the threads; does nothing where that is done.

        Raises:
            SettingsError: a device or a model that is not here.
            ModelError: an unknown model, or a weights file that cannot be used.
        """
        opening = open_core(
            self._settings, scales=self._scales, decoders=0, named_by=self._named_by
        )
        self._shared.open(opening, self._max_in_flight)
        return self

    def close(self) -> None:
        """Finish what is in flight, end all threads and processes, and free the models.

        In a fork of the process that opened it, it only drops them: they are the other's.
        """
        self._shared.close()

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(self, *_: object) -> None:
        self.close()

    def upscale(
        self, image: AnyImage, scale: int = 4, *, on_progress: OnProgress | None = None,
        cancellation: Cancellation | None = None, **options: Unpack[ImageOptions],
    ) -> AnyImage:  # fmt: skip
        """Upscale one image; the result is of the same kind.

        Args:
            image: an array `[h, w]` or `[h, w, c]` of uint8 or uint16 (c is 1 grey, 2 grey and
                alpha, 3 RGB, 4 RGB and alpha), a Pillow image, or the bytes of a file.
            scale: 2 or 4.
            model: another model than the upscaler's, by its name; None or `auto`: the upscaler's.
            denoise: strength of `realesr-general-x4v3`, where `model` or the upscaler names it:
                from 1, which removes noise most, to 0, which keeps it; rounded to a tenth. None:
                the upscaler's own. Several strengths may be in memory at once.
            format: `jpeg`, `png`, `webp`, `avif` or `lossless`, of a result that is a file; None:
                a JPEG, or a PNG where it has alpha or 16 bits a channel.
            quality: of a JPEG, WebP or AVIF, 1 to 100; None: `jpeg_quality`, or the format's.
            max_side_px: a longer result is scaled down to it; 1 to 20,000.
            width_px: the result is scaled down to it, as large as `height_px` allows; 1 to 20,000.
            height_px: likewise.
            metadata: `keep` or `keep-all` of what the source's file says about it; None: nothing.
            on_progress: called with (tiles done, all tiles), before the first tile and after each.
                What it raises ends the call.
            cancellation: cancels the work, from any thread.

        Raises:
            InvalidParameter: the scale, the model, the array or an option cannot be used, or the
                model has no strength of denoising.
            MalformedImage, UnsupportedImageFormat: the file is damaged, or of another format.
            ResolutionTooHigh: the result would be longer than `MAX_RESULT_SIDE_PX`.
            Cancelled: by `cancellation`.
            InternalError, EngineOutOfMemory: the device failed, or has too little memory.
            TypeError: `image` is of none of these kinds, or an argument of another type.
            RuntimeError: it is not open, or was opened in the process that this one is a fork of.
        """
        with self._shared.use() as core:
            call = any_image.plan_call(core, scale, options, Tracking(on_progress, cancellation))
            result: AnyImage = any_image.upscale_any(core, call, image)
        return result

    def upscale_bytes(
        self, source: bytes, scale: int = 4, *, on_progress: OnProgress | None = None,
        cancellation: Cancellation | None = None, **options: Unpack[ImageOptions],
    ) -> Result:  # fmt: skip
        """Upscale an encoded image; arguments and errors as of `upscale`.

        Returns:
            the encoded result with its media type, its size, the model and the seconds it took.
        """
        with self._shared.use() as core:
            call = any_image.plan_call(core, scale, options, Tracking(on_progress, cancellation))
            source = any_image.require_bytes(source)
            output = any_image.decide_file_output(core, call, source)
            return any_image.upscale_file_bytes(core, call, source, output)

    def upscale_file(
        self, path: str | Path, to: str | Path | None = None, scale: int = 4, *,
        on_progress: OnProgress | None = None, cancellation: Cancellation | None = None,
        **options: Unpack[ImageOptions],
    ) -> Path:  # fmt: skip
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
        with self._shared.use() as core:
            call = any_image.plan_call(core, scale, options, Tracking(on_progress, cancellation))
            path = Path(path)
            target = path.parent if to is None else Path(to)
            source = path.read_bytes()
            output = any_image.decide_file_output(core, call, source)
            target = any_image.name_result_file(path, target, scale, output)
            write_atomically(target, any_image.upscale_file_bytes(core, call, source, output).data)
        return target

    @overload
    def many(
        self, images: Iterable[AnyImage], scale: int = 4, *,
        return_exceptions: Literal[False] = False, **options: Unpack[ImageOptions],
    ) -> Iterator[AnyImage]: ...  # fmt: skip

    @overload
    def many(
        self, images: Iterable[AnyImage], scale: int = 4, *,
        return_exceptions: Literal[True], **options: Unpack[ImageOptions],
    ) -> Iterator[AnyImage | Exception]: ...  # fmt: skip

    def many(
        self, images: Iterable[AnyImage], scale: int = 4, *,
        return_exceptions: bool = False, **options: Unpack[ImageOptions],
    ) -> Iterator[AnyImage | Exception]:  # fmt: skip
        """Upscale many images, several at once, and yield their results in order.

        Images are drawn as others are finished, so there may be any number of them. Arguments and
        errors are those of `upscale`. Leaving the loop early cancels what is in flight. What
        `images` itself raises comes after the results of what it gave before.

        Args:
            return_exceptions: yield an image's error in its place, instead of raising it.
        """
        any_image.require_several(images)
        with self._shared.use() as core:
            tracking = Tracking(cancellation=Cancellation())
            call = any_image.plan_call(core, scale, options, tracking)
        return any_image.upscale_in_order(
            self._shared, core, call, images, return_exceptions=return_exceptions
        )

    async def upscale_async(
        self, image: AnyImage, scale: int = 4, *, on_progress: OnProgress | None = None,
        **options: Unpack[ImageOptions],
    ) -> AnyImage:  # fmt: skip
        """Upscale one image without blocking the event loop; `asyncio.gather` runs several.

        Cancelling the task cancels the call. `on_progress` is called in the event loop, whose
        exception handler gets what it raises. Arguments and errors are otherwise as of `upscale`.
        """
        cancellation = Cancellation()
        with self._shared.use() as core:
            tracking = Tracking(on_progress, cancellation).reporting_in(asyncio.get_running_loop())
            call = any_image.plan_call(core, scale, options, tracking)
        with self._shared.threads(core) as threads:
            task = threads.submit(any_image.upscale_any, core, call, image)
        try:
            result: AnyImage = await asyncio.wrap_future(task)
        except asyncio.CancelledError:
            cancellation.cancel()
            raise
        return result
