"""What this machine is, for telling whether something measured on one holds on another."""

import hashlib
import platform
from pathlib import Path

from upscaled.cores import usable_cores

_CPU_INFO = Path("/proc/cpuinfo")
_SIBLINGS = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"


def count_physical_cores() -> int:
    """Cores this process may use, where two that share their arithmetic count as one."""
    siblings = {_read_text(Path(_SIBLINGS.format(core))) or str(core) for core in usable_cores()}
    return len(siblings)


def describe_processor() -> str:
    """The processor's name and a digest of what it can do: a virtual machine may hide some of it,
    and call very different ones by one name.
    """
    fields = _read_first_processor()
    name = fields.get("model name") or platform.processor() or platform.machine()
    return f"{name} {hashlib.sha256(_flags_of(fields).encode()).hexdigest()[:8]}"


def read_processor_flags() -> frozenset[str]:
    """What the processor can do, by Linux's names; elsewhere only what its kind always can."""
    flags = frozenset(_flags_of(_read_first_processor()).split())
    is_arm = platform.machine().lower() in ("arm64", "aarch64")
    return flags or frozenset({"asimd"} if is_arm else ())


def _read_first_processor() -> dict[str, str]:
    fields: dict[str, str] = {}
    for line in _read_text(_CPU_INFO).partition("\n\n")[0].splitlines():
        name, _, value = line.partition(":")
        fields[name.strip()] = value.strip()
    return fields


def _flags_of(fields: dict[str, str]) -> str:
    return fields.get("flags") or fields.get("Features") or ""


def _read_text(path: Path) -> str:
    """Empty where there is no such file: on another system, or hidden by a sandbox."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
