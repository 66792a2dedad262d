"""Measure again what a start left unsettled, slice by slice while a worker is idle.

A start under load, or of a slow model, takes what is likely; this finds out what is best, and hands
the engine over between requests. A slice is a run of one window, or the opening and proof of one
candidate: a request that comes meanwhile waits for nothing, but computes beside it until it ends.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from upscaled.config import Settings
from upscaled_models.autotune.autotuner import (
    Known,
    describe_options,
    fit,
    log_choice,
    measure,
    open_by,
    store,
)
from upscaled_models.autotune.cache import Choice, Claim, lock_folder, read_choice
from upscaled_models.autotune.candidates import Tunable
from upscaled_models.autotune.race import Steps
from upscaled_models.backends.base import Engine
from upscaled_models.backends.device import Device
from upscaled_models.backends.loaded import LoadedModel

MOST_ROUNDS: Final = 3
"""A race that leaves something unsettled is run again, but not for ever: two candidates may be too
close and too restless to be told apart here."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Adopted:
    """What is to run from now on."""

    choice: Choice
    engine: Engine


class Retuner:
    """One model's measuring, which goes on where the last slice ended."""

    def __init__(
        self, load: Callable[[], tuple[LoadedModel, Device]], settings: Settings, running: Engine
    ) -> None:
        """
        Args:
            load: puts the model into memory for measuring, which lets go of it at its end.
            running: the engine that serves, by what was chosen at the start.
        """
        self._load = load
        self._settings = settings
        self._name = running.model
        self._running = _form_of(running)
        self._rounds = 0
        self._race: _Race | None = None
        self._claim: Claim | None = None
        self._is_settled = False
        self._path: Path | None = None
        self._seen_ns = 0

    @property
    def is_done(self) -> bool:
        """Whether there is nothing to measure (any more), and no other process has measured."""
        is_measured = self._is_settled or self._rounds >= MOST_ROUNDS
        return is_measured and _changed_ns(self._path) == self._seen_ns

    @property
    def is_measuring(self) -> bool:
        """Whether a race is under way."""
        return self._race is not None

    def slice(self, is_idle: Callable[[], bool]) -> Adopted | None:
        """Measure for one slice.

        Args:
            is_idle: whether this process has nothing else to do; asked when the slice is over, for
                what was disturbed does not count.

        Returns:
            what runs from now on, where the race is over, or where another process was first.
        """
        try:
            if self._race is None:
                return self._begin()
            found = self._race.step(is_idle)
            return None if found is None else self._end(self._race, *found)
        except Exception:  # noqa: BLE001  (whatever it is, what serves goes on serving)
            _log.warning("%s: cannot be measured", self._name, exc_info=True)
            self._leave()
            self._rounds = MOST_ROUNDS
            return None

    def interrupt(self) -> None:
        """A request has come: let go of what takes much memory, to begin anew later."""
        if self._race is not None and self._race.known.options.is_slow:
            self._leave()

    def _begin(self) -> Adopted | None:
        model, device = self._load()
        known = describe_options(model, device, self._settings)
        self._path, self._seen_ns = known.path, _changed_ns(known.path)
        stored = read_choice(known.path, known.key)
        if stored is not None and stored.is_settled:
            self._is_settled = True
            return self._adopt_stored(model, known, stored)
        self._is_settled = False
        if self._rounds < MOST_ROUNDS and (claim := Claim.take(known.path.parent)):
            self._claim = claim
            self._race = _Race(model, known, measure(known, device))
            _log.info("%s: idle, so what is fastest is measured again", model.spec.name)
        return None

    def _adopt_stored(self, model: LoadedModel, known: Known, stored: Choice) -> Adopted | None:
        """Another worker, or `upscaled tune`, may have measured meanwhile."""
        if (stored.label, stored.window_px, stored.batch) == self._running:
            return None
        engine = open_by(known, stored)
        return None if engine is None else self._adopt(model, stored, engine)

    def _end(self, race: "_Race", choice: Choice, engine: Tunable) -> Adopted:
        self._leave()
        self._rounds += 1
        self._is_settled = choice.is_settled
        with lock_folder(race.known.path.parent):
            store(race.known, choice)
        self._seen_ns = _changed_ns(race.known.path)
        return self._adopt(race.model, choice, fit(engine, choice))

    def _adopt(self, model: LoadedModel, choice: Choice, engine: Engine) -> Adopted:
        self._running = _form_of(engine)
        log_choice(model, choice)
        return Adopted(choice, engine)

    def _leave(self) -> None:
        self._race = None
        if self._claim is not None:
            self._claim.release()
            self._claim = None


@dataclass(slots=True)
class _Race:
    """What is measured, and how far it is."""

    model: LoadedModel
    known: Known
    steps: Steps[tuple[Choice, Tunable]]
    is_begun: bool = False

    def step(self, is_idle: Callable[[], bool]) -> tuple[Choice, Tunable] | None:
        """What was chosen, once the race is over."""
        try:
            if self.is_begun:
                self.steps.send(is_idle())
            else:
                self.is_begun = True
                next(self.steps)
        except StopIteration as end:
            found: tuple[Choice, Tunable] = end.value
            return found
        return None


def _form_of(engine: Engine) -> tuple[str, int, int]:
    return engine.label, engine.window_px, engine.batch


def _changed_ns(path: Path | None) -> int:
    """When a file was last written; 0 where there is none."""
    try:
        return path.stat().st_mtime_ns if path else 0
    except OSError:
        return 0
