"""Measure the time of a run by the clock and by the processor, and choose which of them counts.

Beside other work the clock is noise: at a load of ten on two cores, runs of one network took 0.35
to 0.48 s, and 0.060 to 0.070 s of each core. Processor time alone misses cores that stood idle. So
the clock counts where nothing else kept this process waiting, else the processor's time.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from upscaled_models.backends.base import Engine, Window

MAX_WAITED_SHARE: Final = 0.02
"""Share of the clock's time that ready threads may wait for a core, summed, in an undisturbed run.
The order of two candidates is settled to within 5 %, so an error of this size does not matter."""

_TASKS: Final = Path("/proc/self/task")
_LEAST_S: Final = 1e-9


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
