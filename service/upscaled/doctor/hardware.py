"""Check the machine: processor and memory, what a container may use of them, and the clock."""

import os
import re
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import upscaled
from upscaled.config import Settings
from upscaled.doctor.finding import Finding, failure, ok, warning
from upscaled.state.usage_days import DAY_S
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
CLOCK: Final = "clock"
WARN_DRIFT_S: Final = 5.0
FAIL_DRIFT_S: Final = 300.0

_ADVICE: Final = "set the clock, and keep it by NTP (`timedatectl set-ntp true`)"
_RELEASED: Final = datetime(2026, 11, 22, tzinfo=UTC).timestamp()


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
        return ok("memory", "the system does not report it")
    found = f"{_shown(hardware.free_bytes)} free of {_shown(hardware.memory_bytes)}"
    if hardware.free_bytes < MIN_MEMORY_BYTES:
        return warning(
            "memory",
            found,
            f"leave {_shown(MIN_MEMORY_BYTES)} free, or lower UPSCALED_MAX_INPUT_SIDE_X2 and _X4: "
            "when memory runs out, the kernel kills a worker, and its images fail",
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


def check_clock(settings: Settings) -> list[Finding]:
    """Check that the clock can be right, and agrees with the disk's (another machine's, on NFS)."""
    now = time.time()
    shown = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    earliest = max(_RELEASED, Path(upscaled.__file__).stat().st_mtime)
    if now < earliest - DAY_S:  # archives hold times of day without a zone
        made = datetime.fromtimestamp(earliest, UTC).strftime("%Y-%m-%d")
        return [failure(CLOCK, f"{shown} is before this installation was made ({made})", _ADVICE)]
    found = [ok(CLOCK, shown)]
    drift_s = _measure_disk_drift_s(settings.data_dir)
    if drift_s is not None and abs(drift_s) > WARN_DRIFT_S:
        found.append(describe_drift("disk clock", drift_s))
    return found


def describe_drift(check: str, drift_s: float) -> Finding:
    """Describe how far another clock is ahead of this machine's."""
    ahead = "ahead of" if drift_s > 0 else "behind"
    found = f"{abs(drift_s):.1f} s {ahead} this machine's"
    if abs(drift_s) > FAIL_DRIFT_S:
        return failure(check, found, _ADVICE)
    return warning(check, found, _ADVICE) if abs(drift_s) > WARN_DRIFT_S else ok(check, found)


def _measure_disk_drift_s(folder: Path) -> float | None:
    """Measure the drift by a file's time; None where none can be made, as another check reports."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            before = time.time()
            file.write(b"\0")
            file.flush()
            return os.fstat(file.fileno()).st_mtime - (before + time.time()) / 2
    except OSError:
        return None
