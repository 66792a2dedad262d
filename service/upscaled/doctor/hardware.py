"""Check the processor and the memory, and what a container may use of them."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from upscaled.config import Settings
from upscaled.doctor.finding import Finding, ok, warning
from upscaled_models.processor import (
    count_cores,
    describe_processor,
    find_instruction_set,
    read_text,
)

MIN_MEMORY_BYTES: Final = 3 * 2**29
"""A worker with the default models and a 1500x1500 image at x4 takes a gigabyte in all."""

_MIB: Final = 2**20
_GIB: Final = 2**30


@dataclass(frozen=True, slots=True)
class Hardware:
    """Hardware that this process may use.

    core_quota: of a container's limit; None where there is none.
    memory_bytes: in all, the container's limit where that is less; free_bytes: of it, now.
    """

    processor: str
    instruction_set: str
    cores: int
    core_quota: float | None
    memory_bytes: int
    free_bytes: int


def read_hardware(proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> Hardware:
    """Read what the kernel says; a figure that it hides (another system, a sandbox) is 0."""
    memory = read_text(proc / "meminfo")
    total, free = _kib(memory, "MemTotal"), _kib(memory, "MemAvailable")
    limit, used = read_text(cgroup / "memory.max"), read_text(cgroup / "memory.current")
    if limit.isdigit() and int(limit) < total:
        total = int(limit)
        free = min(free, max(0, total - int(used or 0)))
    return Hardware(
        processor=describe_processor(),
        instruction_set=find_instruction_set(),
        cores=count_cores(),
        core_quota=_quota(read_text(cgroup / "cpu.max")),
        memory_bytes=total,
        free_bytes=free,
    )


def check_hardware(hardware: Hardware, settings: Settings) -> list[Finding]:
    """Check the processor and the memory."""
    return [_describe_processor(hardware, settings), _describe_memory(hardware)]


def _describe_processor(hardware: Hardware, settings: Settings) -> Finding:
    found = f"{hardware.processor}, cores {hardware.cores}, {hardware.instruction_set}"
    quota, wanted = hardware.core_quota, settings.threads * settings.workers
    if quota is not None and quota < hardware.cores and not settings.threads:
        return warning(
            "processor",
            f"{found}; a container's limit leaves {quota:.1f} of the cores",
            f"set UPSCALED_THREADS={max(1, int(quota // settings.workers))}: more threads than "
            "the limit allows only wait for one another",
        )
    if wanted > hardware.cores:
        return warning(
            "processor",
            f"{found}; the settings ask for {wanted} threads",
            "lower UPSCALED_THREADS or UPSCALED_WORKERS: threads beyond the cores make all slower",
        )
    return ok("processor", found)


def _describe_memory(hardware: Hardware) -> Finding:
    if not hardware.memory_bytes:
        return ok("memory", "the system does not say")
    found = f"{_shown(hardware.free_bytes)} free of {_shown(hardware.memory_bytes)}"
    if hardware.free_bytes < MIN_MEMORY_BYTES:
        return warning(
            "memory",
            found,
            f"leave {_shown(MIN_MEMORY_BYTES)} free, or lower UPSCALED_MAX_INPUT_SIDE_X2 and _X4: "
            "where memory ends, the kernel ends a worker and its images fail",
        )
    return ok("memory", found)


def _shown(size_bytes: int) -> str:
    return f"{size_bytes / _GIB:.1f} GiB" if size_bytes >= _GIB else f"{size_bytes // _MIB} MiB"


def _quota(cpu_max: str) -> float | None:
    """Return the cores' worth of time, from "QUOTA PERIOD" or "max PERIOD"."""
    quota, _, period = cpu_max.partition(" ")
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() else None


def _kib(text: str, name: str) -> int:
    match = re.search(rf"^{name}:\s*(\d+) kB$", text, re.MULTILINE)
    return int(match[1]) * 1024 if match else 0
