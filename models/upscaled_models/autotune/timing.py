"""Measure the time of a run by the clock and by the processor, and choose which of them counts.

Beside other work the clock is noise: at a load of ten on two cores, runs of one network took 0.35
to 0.48 s, and 0.060 to 0.070 s of each core. Processor time alone misses cores that stood idle. So
the clock counts where nothing else kept this process waiting, else the processor's time.

Under a load of the machine measuring shows little and takes long. It is read from Linux's `/proc`;
elsewhere a machine counts as idle.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from upscaled_models.backends.base import Engine, Window

MAX_WAITED_SHARE: Final = 0.02
"""Share of the clock's time that ready threads may wait for a core, summed, in an undisturbed run.
The order of two candidates is settled to within 5 %, so an error of this size does not matter."""

_TASKS: Final = Path("/proc/self/task")
_LEAST_S: Final = 1e-9
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
class Timing:
    """One run. processor_s: of all threads of this process; None where another device computes.

    threads: that the run could use. waited_s: how long threads that were ready waited for a core;
    None where the system does not say.
    """

    clock_s: float
    processor_s: float | None = None
    threads: int = 1
    waited_s: float | None = None

    @property
    def is_disturbed(self) -> bool:
        """Return whether other processes may have made it longer."""
        if self.processor_s is None:
            return False
        return self.waited_s is None or self.waited_s > MAX_WAITED_SHARE * self.clock_s

    @property
    def share_s(self) -> float:
        """Return the seconds of each thread, as if all threads had computed all the time."""
        seconds = self.clock_s if self.processor_s is None else self.processor_s / self.threads
        return max(_LEAST_S, seconds)

    @property
    def cost_s(self) -> float:
        """Return the seconds that the run would take on a machine without other work."""
        return self.share_s if self.is_disturbed else max(_LEAST_S, self.clock_s)


def cost_ratio(first: Timing, second: Timing) -> float:
    """Divide the first's cost by the second's, both by the clock or both by the processor."""
    if first.is_disturbed or second.is_disturbed:
        return first.share_s / second.share_s
    return first.cost_s / second.cost_s


class Meter(Protocol):
    def now_s(self) -> float:
        """Return seconds by a monotonic clock."""
        ...

    def run(
        self, engine: Engine, windows: Sequence[Window], threads: int
    ) -> tuple[list[Window], Timing]:
        """Run one batch, and measure it on that many threads; raises what the engine raises."""
        ...


@dataclass(frozen=True, slots=True)
class ProcessMeter:
    """Measures this process. is_cpu: whether the processor computes, not another device."""

    is_cpu: bool = True

    def now_s(self) -> float:
        return time.perf_counter()

    def run(
        self, engine: Engine, windows: Sequence[Window], threads: int
    ) -> tuple[list[Window], Timing]:
        waited_s = read_waited_s() if self.is_cpu else None
        processor_s, clock_s = time.process_time(), time.perf_counter()
        results = engine.start(windows).finish()
        clock_s = time.perf_counter() - clock_s
        processor_s = time.process_time() - processor_s
        if not self.is_cpu:
            return results, Timing(clock_s)
        return results, Timing(clock_s, processor_s, threads, _since(waited_s))


def read_waited_s(tasks: Path = _TASKS) -> float | None:
    """Return how long threads of this process waited for a core, summed; None where unknown.

    The second number of Linux's `schedstat` (Documentation/scheduler/sched-stats.rst).
    """
    waited_ns = 0
    try:
        for task in tasks.iterdir():
            try:
                waited_ns += int((task / "schedstat").read_text().split()[1])
            except (FileNotFoundError, ProcessLookupError):
                if not task.exists():  # the thread has just ended
                    continue
                return None
    except (OSError, ValueError, IndexError):
        return None
    return waited_ns * 1e-9


def _since(before_s: float | None) -> float | None:
    """Return the wait since then; None where unknown. Threads that ended no longer count."""
    after_s = read_waited_s()
    return None if before_s is None or after_s is None else max(0.0, after_s - before_s)


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
            words.append(f"steal time {self.steal_share:.0%}")
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
