"""The machine's load, under which measuring shows little and takes long.

Read from Linux's `/proc`; elsewhere a machine counts as idle.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

SAMPLE_S: Final = 0.1
MAX_OTHERS_SHARE: Final = 0.5
"""Limit on the share of all cores that other processes use. While a service starts, its front end
and its decoders are such processes, and use less."""

MAX_STEAL_SHARE: Final = 0.1
"""Limit on the share of all cores that the host takes from a virtual machine."""

MAX_LOAD_PER_CORE: Final = 1.0
"""Limit on the mean number of threads, by core, that ran or were ready in the last minute. A start
adds 0.1."""

MAX_PRESSURE: Final = 0.5
"""Limit on the share of the last ten seconds in which a thread waited for a core (PSI, "some
avg10")."""

IDLE_SHARE: Final = 0.25
"""A machine is idle where none of these is above this share of its limit."""


@dataclass(frozen=True, slots=True)
class Load:
    """Other work on the machine; shares are of all cores. pressure: None where unknown."""

    others_share: float
    steal_share: float
    load_per_core: float
    pressure: float | None

    @property
    def is_busy(self) -> bool:
        return self._worst > 1

    @property
    def is_idle(self) -> bool:
        return self._worst <= IDLE_SHARE

    @property
    def _worst(self) -> float:
        """Return the largest sign of other work, as a share of its limit."""
        return max(
            self.others_share / MAX_OTHERS_SHARE,
            self.steal_share / MAX_STEAL_SHARE,
            self.load_per_core / MAX_LOAD_PER_CORE,
            (self.pressure or 0.0) / MAX_PRESSURE,
        )

    def __str__(self) -> str:
        words = [
            f"other processes use {self.others_share:.0%} of the cores",
            f"load {self.load_per_core:.1f} a core",
        ]
        if self.steal_share >= 0.01:
            words.append(f"the host steals {self.steal_share:.0%}")
        if self.pressure is not None:
            words.append(f"processor pressure {self.pressure:.0%}")
        return ", ".join(words)


NO_LOAD: Final = Load(0.0, 0.0, 0.0, None)


def read_load(proc: Path = Path("/proc"), sleep: Callable[[float], None] = time.sleep) -> Load:
    """Measure the load of the whole machine, also in a container; takes `SAMPLE_S`."""
    before = _read_ticks(proc), time.process_time()
    sleep(SAMPLE_S)
    after = _read_ticks(proc), time.process_time()
    if before[0] is None or after[0] is None:
        return NO_LOAD
    total = max(1, after[0].total - before[0].total)
    own = (after[1] - before[1]) * os.sysconf("SC_CLK_TCK")
    return Load(
        others_share=max(0.0, after[0].busy - before[0].busy - own) / total,
        steal_share=max(0, after[0].steal - before[0].steal) / total,
        load_per_core=_read_number(proc / "loadavg", 0) / (os.cpu_count() or 1),
        pressure=_read_pressure(proc / "pressure" / "cpu"),
    )


class _Ticks(NamedTuple):
    """Clock ticks of all cores since the machine started."""

    total: int
    busy: int
    steal: int


def _read_ticks(proc: Path) -> _Ticks | None:
    """Read `/proc/stat`, first line: user nice system idle iowait irq softirq steal guest ..."""
    try:
        line = (proc / "stat").read_text().partition("\n")[0]
        ticks = [int(each) for each in line.split()[1:9]]
        user, nice, system, idle, iowait, irq, softirq, steal = ticks
    except (OSError, ValueError):
        return None
    busy = user + nice + system + irq + softirq
    return _Ticks(busy + idle + iowait + steal, busy, steal)


def _read_number(path: Path, at: int) -> float:
    try:
        return float(path.read_text().split()[at])
    except (OSError, ValueError, IndexError):
        return 0.0


def _read_pressure(path: Path) -> float | None:
    """Read a file such as "some avg10=1.23 avg60=...", in percent."""
    try:
        words = path.read_text().split()
        return float(words[1].removeprefix("avg10=")) / 100
    except (OSError, ValueError, IndexError):
        return None
