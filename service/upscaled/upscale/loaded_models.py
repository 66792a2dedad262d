"""Keep models in memory: open each when it is first needed, and unload it when it is idle."""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

from upscaled.logs import event
from upscaled.process.confinement import lower_priority
from upscaled_models.backends.base import Engine
from upscaled_models.registry import MAX_STRENGTHS, split_strength

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Model:
    """One model: its engine or the opening of it, how many use it, and when the last one left."""

    engine: Future[Engine]
    users: int = 0
    left_at: float = field(default_factory=time.monotonic)


class LoadedModels:
    """A context that owns the engines; every method may be called from any thread.

    At most `MAX_STRENGTHS` idle strengths of denoising stay in memory, beside those of images in
    flight. Engines are opened one after the other, by a thread of their own: threads that libraries
    start for a network inherit the priority of the thread that uses it first.
    """

    def __init__(
        self,
        open_model: Callable[[str], Engine],
        *,
        niceness: int = 0,
        idle_unload_s: float = 0,
        kept: frozenset[str] = frozenset(),
    ) -> None:
        """Prepare to open models, none of which is in memory yet.

        Args:
            open_model: opens the engine of a model by its name; `use` raises what it raises.
            niceness: of the thread that opens engines, on top of the process's own.
            idle_unload_s: a model that nothing has used for so long is unloaded; 0: never.
            kept: the models that stay, however long they are idle.
        """
        self._open_model = open_model
        self._idle_unload_s = idle_unload_s
        self._kept = kept
        self._lock = threading.Lock()
        self._models: dict[str, _Model] = {}
        self._opener = ThreadPoolExecutor(
            1, thread_name_prefix="opener", initializer=lower_priority, initargs=(niceness,)
        )
        self._is_closed = threading.Event()
        self._sweeper: threading.Thread | None = None
        if idle_unload_s:
            self._sweeper = threading.Thread(target=self._sweep, name="idle-models", daemon=True)
            self._sweeper.start()

    @contextmanager
    def use(self, name: str) -> Iterator[Engine]:
        """Keep a model's engine in memory for the block; opened now, it raises what that does."""
        with self._lock:
            model = self._models.get(name)
            if model is None:
                model = _Model(self._opener.submit(self._open_model, name))
                self._models[name] = model
            model.users += 1
            unloaded = self._drop_strengths()
        _log_unloaded(unloaded)
        try:
            yield self._wait(name, model)
        finally:
            with self._lock:
                model.users -= 1
                model.left_at = time.monotonic()
                unloaded = self._drop_strengths()
            _log_unloaded(unloaded)

    def preload(self, names: Iterable[str]) -> None:
        """Open models now; raises as `use`."""
        for name in names:
            with self.use(name):
                pass

    def adopt(self, name: str, engine: Engine) -> None:
        """Use another engine of a model from now on, if the model is still in memory.

        Work that uses the former engine goes on with it to its end.
        """
        opened: Future[Engine] = Future()
        opened.set_result(engine)
        with self._lock:
            if name in self._models:
                self._models[name] = _Model(opened)

    def loaded(self) -> tuple[str, ...]:
        """Return the names of the models that are in memory."""
        with self._lock:
            models = tuple(self._models.items())
        return tuple(
            name for name, model in models if model.engine.done() and not model.engine.exception()
        )

    def unload_idle(self, idle_s: float) -> None:
        """Unload the models that nothing has used for at least `idle_s` seconds."""
        before = time.monotonic() - idle_s
        with self._lock:
            idle = [
                name
                for name, model in self._models.items()
                if not model.users and model.left_at <= before and name not in self._kept
            ]
            for name in idle:
                del self._models[name]
        _log_unloaded(idle)

    def _drop_strengths(self) -> list[str]:
        """Drop the strengths of denoising that nothing has used for longest; return their names."""
        strengths = [
            name for name in self._models.keys() - self._kept if split_strength(name)[1] is not None
        ]
        idle = [name for name in strengths if not self._models[name].users]
        idle.sort(key=lambda name: self._models[name].left_at)
        dropped = idle[: max(0, len(strengths) - MAX_STRENGTHS)]
        for name in dropped:
            del self._models[name]
        return dropped

    def _wait(self, name: str, model: _Model) -> Engine:
        try:
            return model.engine.result()
        except BaseException:
            with self._lock:
                if self._models.get(name) is model:
                    del self._models[name]
            raise

    def _sweep(self) -> None:
        while not self._is_closed.wait(min(60.0, self._idle_unload_s / 2)):
            self.unload_idle(self._idle_unload_s)

    def __enter__(self) -> "LoadedModels":
        return self

    def __exit__(self, *_: object) -> None:
        self._is_closed.set()
        self._opener.shutdown(cancel_futures=True)
        if self._sweeper is not None:
            self._sweeper.join()


def _log_unloaded(names: Iterable[str]) -> None:
    for name in names:
        _log.info("an idle model was unloaded", extra=event("model_unloaded", model=name))
