"""Share one open core between the calls of an upscaler, and let its end wait for them."""

import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Final, TypeVar

from upscaled.upscale.core import Core

_NOT_OPEN: Final = "the upscaler is not open: use it in a `with` block, or call open()"
_OPENED_AGAIN: Final = "the upscaler was closed after this call, and opened again: call again"
_FORKED: Final = "the upscaler was opened in another process: open one in each"

_T = TypeVar("_T")


class SharedCore:
    """The core that an upscaler has open, its threads, and the calls that use them.

    Any number of threads may call each method. max_in_flight: images that the threads work on.
    """

    def __init__(self) -> None:
        self.max_in_flight = 0
        self._opening = threading.Lock()
        self._changed = threading.Condition()
        self._core: Core | None = None
        self._stack = ExitStack()
        self._threads = ThreadPoolExecutor(1)
        self._process_id = 0
        self._callers: list[int] = []  # the thread of each call under way

    def open(self, opening: AbstractContextManager[Core], max_in_flight: int) -> None:
        """Open the core and start threads; does nothing where that is done.

        opening: opens and closes a core. max_in_flight: 0: as suits the core's device.
        """
        with self._opening, ExitStack() as stack:
            if self._core is not None:
                return
            core = stack.enter_context(opening)
            self.max_in_flight = max_in_flight or core.max_in_flight
            self._threads = stack.enter_context(
                ThreadPoolExecutor(self.max_in_flight, thread_name_prefix="upscale")
            )
            with self._changed:
                self._process_id = os.getpid()
                self._core, self._stack = core, stack.pop_all()

    def close(self) -> None:
        """Refuse further calls, wait for those under way, and close the core.

        A call that closes it, as from its report of progress, waits for the others alone. In a fork
        of the process that opened it, core and threads are only dropped: they are the other's.
        """
        if self._core is not None and self._process_id != os.getpid():
            self._core = None
            self._stack.pop_all()
            return
        own = threading.get_ident()
        with self._changed:
            self._core = None
            stack = self._stack.pop_all()
            self._callers = [caller for caller in self._callers if caller != own]
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._callers)
        stack.close()

    @contextmanager
    def use(self) -> Iterator[Core]:
        """Use the core for the block, before whose end it is not closed.

        Raises:
            RuntimeError: it is not open, or was opened in the process that this one is a fork of.
        """
        self._require_own_process()
        own = threading.get_ident()
        with self._changed:
            if self._core is None:
                raise RuntimeError(_NOT_OPEN)
            core = self._core
            self._callers.append(own)
        try:
            yield core
        finally:
            with self._changed:
                if own in self._callers:
                    self._callers.remove(own)
                self._changed.notify_all()

    @contextmanager
    def threads(self, core: Core) -> Iterator[ThreadPoolExecutor]:
        """Submit work with the core that `use` gave to its threads, for the block.

        Raises:
            RuntimeError: as `use`; or that core was closed, and another one opened.
        """
        self._require_own_process()
        with self._changed:
            if self._core is not core:
                raise RuntimeError(_NOT_OPEN if self._core is None else _OPENED_AGAIN)
            yield self._threads

    def wait(self, task: "Future[_T]") -> _T:
        """Wait for submitted work; RuntimeError in a fork, which has no thread that does it."""
        self._require_own_process()
        return task.result()

    def _require_own_process(self) -> None:
        if self._core is not None and self._process_id != os.getpid():
            raise RuntimeError(_FORKED)
