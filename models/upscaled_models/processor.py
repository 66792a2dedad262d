"""This machine's processor: its cores, and the name and flags that measurements are stored by."""

import hashlib
import os
import platform
from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import Final

_CPU_INFO: Final = Path("/proc/cpuinfo")
_SIBLINGS: Final = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
_NODES: Final = Path("/sys/devices/system/node")


class InstructionSet(StrEnum):
    """The instructions that decide how fast networks compute, the most capable first."""

    AMX = "AMX"
    AVX512_BF16 = "AVX-512 bf16"
    VNNI = "VNNI"
    AVX2 = "AVX2"
    NEON = "NEON"
    OTHER = "no known instruction set"


_FLAGS: Final[Mapping[InstructionSet, Sequence[str]]] = {
    InstructionSet.AMX: ("amx_int8", "amx_bf16"),
    InstructionSet.AVX512_BF16: ("avx512_bf16", "avx512_vnni"),
    InstructionSet.VNNI: ("avx512_vnni|avx_vnni",),
    InstructionSet.AVX2: ("avx2",),
    InstructionSet.NEON: ("asimd",),
}
"""By Linux's names in `/proc/cpuinfo`; each row needs every word, or one of a pair."""

EXACT_8_BITS: Final = frozenset(
    {InstructionSet.AMX, InstructionSet.AVX512_BF16, InstructionSet.VNNI}
)
"""Instruction sets that add up 8-bit products in 32 bits, as every recorded proof was made. Others
add them up in 16 bits and may saturate."""


def usable_cores() -> set[int]:
    """Return the cores this process may run on, or all where the system does not say."""
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))


def count_cores() -> int:
    """Return how many cores this process may run on."""
    return len(usable_cores())


def count_physical_cores() -> int:
    """Count the cores this process may run on, two that share arithmetic units as one."""
    siblings = {read_text(Path(_SIBLINGS.format(core))) or str(core) for core in usable_cores()}
    return len(siblings)


def pin_to(cores: Collection[int]) -> None:
    """Pin this process and its children to some cores; does nothing without any, or on macOS.

    Raises:
        OSError: this process may run on none of them.
    """
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)


def cores_by_node(nodes: Path = _NODES) -> list[set[int]]:
    """Return the cores this process may run on by NUMA node; one group where none are listed."""
    listed = sorted(nodes.glob("node[0-9]*/cpulist"), key=lambda path: int(path.parent.name[4:]))
    usable = usable_cores()
    found = [usable & _parse_list(read_text(path)) for path in listed]
    near = [cores for cores in found if cores]
    return near if set[int]().union(*near) == usable else [usable]


def divide_cores(parts: int, nodes: Sequence[set[int]] | None = None) -> list[set[int]]:
    """Divide the cores this process may run on into parts, none larger by more than one core.

    Neighbours stay together: two that share arithmetic units, then those of a node (`nodes`). More
    parts than cores raise ValueError.
    """
    nodes = cores_by_node() if nodes is None else nodes
    units: list[list[int]] = []
    for cores in nodes:
        by_unit: dict[str, list[int]] = {}
        for core in sorted(cores):
            by_unit.setdefault(read_text(Path(_SIBLINGS.format(core))) or str(core), []).append(
                core
            )
        units += by_unit.values()
    if len(units) < parts:
        units = [[core] for unit in units for core in unit]
    if len(units) < parts:
        raise ValueError(f"{parts} parts of {len(units)} cores")
    ends = [len(units) * part // parts for part in range(parts + 1)]
    return [{core for unit in units[a:b] for core in unit} for a, b in pairwise(ends)]


def describe_processor() -> str:
    """Return the processor's name and a digest of its flags.

    A virtual machine may hide some flags, and give very different processors one name.
    """
    fields = _read_first_processor()
    name = fields.get("model name") or platform.processor() or platform.machine()
    return f"{name} {hashlib.sha256(_flags_of(fields).encode()).hexdigest()[:8]}"


def read_processor_flags() -> frozenset[str]:
    """Return the processor's flags by Linux's names; elsewhere those that its kind always has."""
    flags = frozenset(_flags_of(_read_first_processor()).split())
    is_arm = platform.machine().lower() in ("arm64", "aarch64")
    return flags or frozenset({"asimd"} if is_arm else ())


def find_instruction_set(flags: frozenset[str] | None = None) -> InstructionSet:
    """Find the most capable instruction set of this processor, or of one with the given flags."""
    present = read_processor_flags() if flags is None else flags
    for name, needed in _FLAGS.items():
        if all(any(word in present for word in each.split("|")) for each in needed):
            return name
    return InstructionSet.OTHER


def _read_first_processor() -> dict[str, str]:
    fields: dict[str, str] = {}
    for line in read_text(_CPU_INFO).partition("\n\n")[0].splitlines():
        name, _, value = line.partition(":")
        fields[name.strip()] = value.strip()
    return fields


def _parse_list(text: str) -> set[int]:
    """Parse a list of cores as Linux writes it, for example 0-3,8."""
    cores: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        cores.update(range(int(first), int(last or first) + 1))
    return cores


def _flags_of(fields: dict[str, str]) -> str:
    return fields.get("flags") or fields.get("Features") or ""


def read_text(path: Path) -> str:
    """Read a file's text; empty where there is none, on another system or hidden by a sandbox."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
