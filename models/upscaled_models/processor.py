"""This machine's processor: its cores, its name and what it can do.

What was measured on one processor holds on another of the same description.
"""

import hashlib
import os
import platform
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Final

_CPU_INFO = Path("/proc/cpuinfo")
_SIBLINGS = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"


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
    siblings = {_read_text(Path(_SIBLINGS.format(core))) or str(core) for core in usable_cores()}
    return len(siblings)


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
    """Find the most capable instruction set of this processor, or of one with such flags."""
    present = read_processor_flags() if flags is None else flags
    for name, needed in _FLAGS.items():
        if all(any(word in present for word in each.split("|")) for each in needed):
            return name
    return InstructionSet.OTHER


def _read_first_processor() -> dict[str, str]:
    fields: dict[str, str] = {}
    for line in _read_text(_CPU_INFO).partition("\n\n")[0].splitlines():
        name, _, value = line.partition(":")
        fields[name.strip()] = value.strip()
    return fields


def _flags_of(fields: dict[str, str]) -> str:
    return fields.get("flags") or fields.get("Features") or ""


def _read_text(path: Path) -> str:
    """Read a file's text; empty where there is none, on another system or hidden by a sandbox."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
