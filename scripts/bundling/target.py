"""The machine a bundle is for: its Python, its C library and which build of torch it gets."""

import platform
import re
from dataclasses import dataclass
from typing import Literal

Accelerator = Literal["cpu", "cuda"]
Glibc = tuple[int, int]

_MANYLINUX = re.compile(r"manylinux(?:(1|2010|2014)|_(\d+)_(\d+))_([a-z0-9_]+)")
_OLD_NAMES: dict[str, Glibc] = {"1": (2, 5), "2010": (2, 12), "2014": (2, 17)}
_OLDEST_MINOR = 5


class UnfitTarget(ValueError):
    """No bundle can be made for that machine; the text says why."""


@dataclass(frozen=True, slots=True)
class Target:
    """Machine that wheels must suit: CPython `python` ("3.11") on Linux with `glibc` or newer.

    machine: as `uname -m` prints it.
    """

    python: str
    glibc: Glibc
    machine: str
    accelerator: Accelerator

    @property
    def python_tag(self) -> str:
        return "cp" + self.python.replace(".", "")

    def platform_tags(self) -> list[str]:
        """List every tag that a wheel for this machine may carry, newest first.

        pip takes the tags it is given to the letter: not even an older C library counts as one.
        """
        major, minor = self.glibc
        tags = []
        for older in range(minor, _OLDEST_MINOR - 1, -1):
            tags.append(f"manylinux_{major}_{older}_{self.machine}")
            tags += [
                f"manylinux{name}_{self.machine}"
                for name, glibc in _OLD_NAMES.items()
                if glibc == (major, older)
            ]
        return [*tags, f"linux_{self.machine}"]

    def marker_environment(self) -> dict[str, str]:
        """Return the values that requirements' markers are evaluated with: the target's alone."""
        return {
            "implementation_name": "cpython",
            "implementation_version": f"{self.python}.0",
            "os_name": "posix",
            "platform_machine": self.machine,
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": f"{self.python}.0",
            "python_version": self.python,
            "sys_platform": "linux",
        }


def this_platform() -> str:
    """Return the platform tag of the machine this runs on.

    Raises:
        UnfitTarget: it is no Linux with glibc, so the target's platform must be named.
    """
    library, release = platform.libc_ver()
    if platform.system() != "Linux" or library != "glibc":
        raise UnfitTarget("this machine has no glibc: name the target by --platform")
    return f"manylinux_{release.replace('.', '_')}_{platform.machine()}"


def read_target(platform_tag: str, python: str, accelerator: Accelerator) -> Target:
    """Read a tag such as `manylinux_2_28_x86_64` and a version such as `3.11`.

    Raises:
        UnfitTarget: torch has no builds for it, or it is none at all.
    """
    if not re.fullmatch(r"3\.\d+", python) or int(python[2:]) < 11:
        raise UnfitTarget(f"--python {python}: must be 3.11 or newer, as in 3.11")
    found = parse_manylinux(platform_tag)
    if found is None:
        raise UnfitTarget(
            f"--platform {platform_tag}: must name a C library, as in manylinux_2_28_x86_64; "
            "torch has no builds for musl, and the bundle's installer is for Linux"
        )
    return Target(python, *found, accelerator)


def parse_manylinux(platform_tag: str) -> tuple[Glibc, str] | None:
    """Return the oldest C library and the machine that a tag names; None where it names none."""
    found = _MANYLINUX.fullmatch(platform_tag)
    if found is None:
        return None
    old_name, major, minor, machine = found.groups()
    return _OLD_NAMES[old_name] if old_name else (int(major), int(minor)), machine
