"""Hold the core of the Python API while it is open, and the threads that `many` upscales in."""

import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, Final

from upscaled.config import SCALES, Settings, SettingsError
from upscaled.upscale.any_image import Call, upscale_any
from upscaled.upscale.call_options import as_whole_number
from upscaled.upscale.core import Core
from upscaled.upscale.opening import open_core

NOT_OPEN: Final = "the upscaler is not open: use it in a `with` block, or call open()"


class Session:
    """The core of an upscaler and its threads; opened, closed and opened again by any thread."""

    def __init__(
        self,
        settings: Settings,
        scales: tuple[int, ...],
        *,
        max_in_flight: int = 0,
        named_by: str | None = None,
    ) -> None:
        """Check what the upscaler was made with; `open` loads what it needs.

        Args:
            max_in_flight: images at once in the threads; 0: as suits the device.
            named_by: as of `open_core`.

        Raises:
            SettingsError: scales that there are not, or another number than 0 or more.
        """
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
        self._stack = ExitStack()
        self._core: Core | None = None
        self._process_id = 0
        self._threads = ThreadPoolExecutor(1)
        self._opening = threading.Lock()

    def open(self) -> None:
        """Load the models and start the threads; does nothing where that is done.

        Raises:
            SettingsError, ModelError: as `open_core` does.
        """
        with self._opening:
            if self._core is None:
                self._open()

    def _open(self) -> None:
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

    def close(self) -> None:
        """Finish what is in flight, end all threads and processes, and free the models.

        In a fork of the process that opened it, it only drops them: they are the other's.
        """
        if self._core is not None and self._process_id != os.getpid():
            self._stack.pop_all()
        self._core = None
        self._stack.close()

    @property
    def core(self) -> Core:
        """Return the open core.

        Raises:
            RuntimeError: it is not open, or was opened in the process that this one is a fork of.
        """
        if self._core is None:
            raise RuntimeError(NOT_OPEN)
        if self._process_id != os.getpid():  # whose threads a fork does not have
            raise RuntimeError("the upscaler was opened in another process: open one in each")
        return self._core

    def submit(self, call: Call, image: object) -> "Future[Any]":
        """Start to upscale an image in one of the threads, as soon as one is free."""
        return self._threads.submit(upscale_any, self.core, call, image)

    def upscale_in_order(
        self, call: Call, images: Iterable[object], *, return_exceptions: bool
    ) -> Iterator[Any]:
        """Upscale images, several at once, and yield their results in order.

        The call's `cancellation` is used when the iterator is closed before its end.

        return_exceptions: yield an image's error in its place, instead of raising it.
        """
        tasks: deque[Future[Any]] = deque()

        def finish_first() -> object:
            try:
                return tasks.popleft().result()
            except Exception as error:
                if not return_exceptions:
                    raise
                return error

        try:
            for image in images:
                tasks.append(self.submit(call, image))
                if len(tasks) >= self._max_in_flight:
                    yield finish_first()
            while tasks:
                yield finish_first()
        finally:
            if call.tracking.cancellation is not None:
                call.tracking.cancellation.cancel()
            for task in tasks:
                task.cancel()
