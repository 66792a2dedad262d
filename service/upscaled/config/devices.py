"""Parse the setting of devices: "cuda:0,cuda:1", "cpu,cpu" or "cpu:0-15,cpu:16-31".

An entry stands for one device with workers of its own. Cores are listed as by taskset(1), which may
contain commas: in "cpu:0-15,32-47,cpu:16-31,48-63" a part that begins with a digit continues the
list before it.
"""

import re
from collections.abc import Iterable
from typing import Annotated, Final

from pydantic import AfterValidator

MAX_DEVICES: Final = 64
MAX_CORE: Final = 4095
"""Linux numbers no more: NR_CPUS is 8192 at most, and half of it on machines that exist."""

MEANING: Final = (
    "must be auto, cpu, cuda or mps; or cuda:N, each GPU once; or cpu twice or more, or cpu:CORES, "
    "as in cpu:0-15,cpu:16-31, each core once"
)

_ENTRY: Final = re.compile(
    r"auto|cpu|cuda|mps|cuda:\d{1,3}|cpu:\d{1,4}(-\d{1,4})?(,\d{1,4}(-\d{1,4})?)*"
)
_CORES: Final = "cpu:"
_GPU: Final = "cuda:"


def split_devices(text: str) -> tuple[str, ...]:
    """Return the entries of the setting, as in ("cpu:0-15,32-47", "cpu:16-31,48-63")."""
    entries: list[str] = []
    for part in text.split(","):
        if entries and part[:1].isdigit() and entries[-1].startswith(_CORES):
            entries[-1] += f",{part}"
        else:
            entries.append(part)
    return tuple(entries)


def cores_of(device: str) -> frozenset[int]:
    """Return the cores that an entry lists; empty where it lists none: all of the process's."""
    cores: set[int] = set()
    if device.startswith(_CORES):
        for part in device.removeprefix(_CORES).split(","):
            first, _, last = part.partition("-")
            if last and int(last) < int(first):
                raise ValueError(MEANING)
            cores.update(range(int(first), int(last or first) + 1))
    return frozenset(cores)


def name_cores(cores: Iterable[int]) -> str:
    """Return the entry of a CPU's cores, as in "cpu:0-3,8"."""
    runs: list[list[int]] = []
    for core in sorted(cores):
        if runs and core == runs[-1][1] + 1:
            runs[-1][1] = core
        else:
            runs.append([core, core])
    return _CORES + ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in runs)


def kind_of(device: str) -> str:
    """Return an entry as torch names devices: without its cores."""
    return "cpu" if device.startswith(_CORES) else device


def _check(text: str) -> str:
    entries = split_devices(text)
    if not all(_ENTRY.fullmatch(entry) for entry in entries) or len(entries) > MAX_DEVICES:
        raise ValueError(MEANING)
    if all(entry.startswith(_GPU) for entry in entries):
        is_right = len({int(entry.removeprefix(_GPU)) for entry in entries}) == len(entries)
    elif all(entry.startswith(_CORES) for entry in entries):
        listed = [cores_of(entry) for entry in entries]
        all_cores = frozenset[int]().union(*listed)
        is_right = sum(map(len, listed)) == len(all_cores) and max(all_cores) <= MAX_CORE
    else:
        is_right = len(entries) == 1 or set(entries) == {"cpu"}
    if not is_right:
        raise ValueError(MEANING)
    return text


Devices = Annotated[str, AfterValidator(_check)]
"""The text of the setting, checked."""
