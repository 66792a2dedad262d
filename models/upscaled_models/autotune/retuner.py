"""Measure in idle time what a start left unsettled, slice by slice.

A slice is a run of one window, or the opening and trial of one candidate: a request that comes
meanwhile computes beside it. The worker adopts what is fastest between requests.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from upscaled_models.autotune.autotuner import Autotuner, fit
from upscaled_models.autotune.cache import Choice, Claim
from upscaled_models.autotune.race import Steps
from upscaled_models.backends.base import Engine, Tunable

MOST_ROUNDS: Final = 3
"""Limit on races of one model: two candidates may be too close and too noisy to ever be settled."""

_Race = tuple[Autotuner, Steps[tuple[Choice, Tunable]]]
"""A race under way."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Adopted:
    """The choice and the engine that the worker runs from now on."""

    choice: Choice
    engine: Engine


class Retuner:
    """Measures one model in slices, each of which continues where the last one ended."""

    def __init__(self, load: Callable[[], Autotuner], running: Engine) -> None:
        """Prepare to measure the model that `running` serves; `load` loads it a second time."""
        self._load = load
        self._name = running.info.model
        self._running = _form_of(running)
        self._rounds = 0
        self._race: _Race | None = None
        self._claim: Claim | None = None
        self._is_settled = False
        self._path: Path | None = None
        self._seen_ns = 0

    @property
    def is_done(self) -> bool:
        """Return whether all is measured, and no other process has stored a choice since."""
        is_measured = self._is_settled or self._rounds >= MOST_ROUNDS
        return is_measured and _changed_ns(self._path) == self._seen_ns

    @property
    def is_measuring(self) -> bool:
        return self._race is not None

    def slice(self, is_idle: Callable[[], bool]) -> Adopted | None:
        """Measure for one slice; return what to run from now on, once that is known.

        Args:
            is_idle: whether this process has no other work; called when the slice is over, since a
                disturbed run does not count.
        """
        try:
            if self._race is None:
                return self._begin()
            autotuner, steps = self._race
            try:
                steps.send(is_idle())
            except StopIteration as end:
                return self._end(autotuner, *end.value)
            return None
        except Exception:  # noqa: BLE001  (a failed measurement must not end the worker)
            _log.warning("%s: cannot be measured", self._name, exc_info=True)
            self._leave()
            self._rounds = MOST_ROUNDS
            return None

    def interrupt(self) -> None:
        """Drop a slow model's race at a request: it holds much memory. It is begun anew later."""
        if self._race is not None and self._race[0].space.is_slow:
            self._leave()

    def _begin(self) -> Adopted | None:
        autotuner = self._load()
        self._path, self._seen_ns = autotuner.file.path, _changed_ns(autotuner.file.path)
        stored = autotuner.read_stored()
        if stored is not None and stored.is_settled:
            self._is_settled = True
            return self._adopt_stored(autotuner, stored)
        self._is_settled = False
        if self._rounds < MOST_ROUNDS and (claim := Claim.acquire(autotuner.file.path.parent)):
            self._claim = claim
            self._race = autotuner, autotuner.measure()
            _log.info("%s: idle: measuring again what is fastest", self._name)
            next(self._race[1])
        return None

    def _adopt_stored(self, autotuner: Autotuner, stored: Choice) -> Adopted | None:
        """Adopt what another worker or `upscaled tune` has measured, unless it runs already."""
        if (stored.label, stored.window_px, stored.batch) == self._running:
            return None
        engine = autotuner.open_by(stored)
        return None if engine is None else self._adopt(autotuner, stored, engine)

    def _end(self, autotuner: Autotuner, choice: Choice, engine: Tunable) -> Adopted:
        self._leave()
        self._rounds += 1
        self._is_settled = choice.is_settled
        autotuner.store(choice)
        self._seen_ns = _changed_ns(autotuner.file.path)
        return self._adopt(autotuner, choice, fit(engine, choice))

    def _adopt(self, autotuner: Autotuner, choice: Choice, engine: Engine) -> Adopted:
        self._running = _form_of(engine)
        autotuner.log(choice)
        return Adopted(choice, engine)

    def _leave(self) -> None:
        self._race = None
        if self._claim is not None:
            self._claim.release()
            self._claim = None


def _form_of(engine: Engine) -> tuple[str, int, int]:
    return engine.info.label, engine.info.window_px, engine.info.batch


def _changed_ns(path: Path | None) -> int:
    """Return when a file was last written; 0 where there is none."""
    try:
        return path.stat().st_mtime_ns if path else 0
    except OSError:
        return 0
