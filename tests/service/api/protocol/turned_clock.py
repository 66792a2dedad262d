"""A clock for the deadlines of connections that a test turns: a slow machine changes nothing."""

import pytest

from tests.service.api.waiting import wait_until
from upscaled.api.protocol import http1, output, registry


class TurnedClock:
    """Takes the place of the module `time` where connections are checked."""

    def __init__(self) -> None:
        self._now_s = 1000.0
        self._reads = 0

    def monotonic(self) -> float:
        self._reads += 1
        return self._now_s

    def turn(self, seconds: float) -> None:
        """Let time pass, and wait until the connections have been checked since."""
        self._now_s += seconds
        before = self._reads
        wait_until(lambda: self._reads > before + 3)


def turned_clock(monkeypatch: pytest.MonkeyPatch) -> TurnedClock:
    """Return the clock of all connections that are opened from now on."""
    clock = TurnedClock()
    for module in (http1, output, registry):
        monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(registry, "CHECK_EVERY_S", 0.01)
    return clock
