"""What this machine is, for telling whether something measured on one holds on another."""

import hashlib
import platform
from pathlib import Path

from service.cores import usable_cores

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
    fields: dict[str, str] = {}
    for line in _read_text(_CPU_INFO).partition("\n\n")[0].splitlines():
        name, _, value = line.partition(":")
        fields[name.strip()] = value.strip()
    name = fields.get("model name") or platform.processor() or platform.machine()
    flags = fields.get("flags") or fields.get("Features") or ""
    return f"{name} {hashlib.sha256(flags.encode()).hexdigest()[:8]}"


def _read_text(path: Path) -> str:
    """Empty where there is no such file: on another system, or hidden by a sandbox."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
