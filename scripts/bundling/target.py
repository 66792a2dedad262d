"""The machine a bundle is for: its Python, its C library and which build of torch it gets."""

import re
import subprocess
from collections.abc import Sequence
from typing import Literal, NamedTuple

from packaging.tags import platform_tags

Accelerator = Literal["cpu", "cuda"]
Glibc = tuple[int, int]

_OLD_NAMES = {5: "1", 12: "2010", 17: "2014"}
"""What wheels for glibc 2.5, 2.12 and 2.17 may say instead of it."""


class CannotBundle(RuntimeError):
    """A bundle cannot be made; the text says why, and names what is at fault."""


class Target(NamedTuple):
    """Machine (of `uname -m`) that wheels must suit, with CPython `python` and `glibc` or newer."""

    python: str
    glibc: Glibc
    machine: str
    accelerator: Accelerator

    def platform_tags(self) -> list[str]:
        """List every tag that a wheel for this machine may carry, newest first: pip adds none."""
        minors = range(self.glibc[1], min(_OLD_NAMES) - 1, -1)
        names = [name for each in minors for name in (f"_2_{each}", _OLD_NAMES.get(each)) if name]
        return [f"manylinux{name}_{self.machine}" for name in names] + [f"linux_{self.machine}"]


def this_platform() -> str:
    """Return the tag of the machine this runs on; without glibc, one that names no C library."""
    tags = list(platform_tags())
    return next(filter(parse_manylinux, tags), tags[0])


def read_target(platform_tag: str, python: str, accelerator: Accelerator) -> Target:
    """Read a tag such as `manylinux_2_28_x86_64`; one without torch's builds is refused."""
    if not re.fullmatch(r"3\.\d+", python) or int(python[2:]) < 11:
        raise CannotBundle(f"--python {python}: must be 3.11 or newer, as in 3.11")
    if found := parse_manylinux(platform_tag):
        return Target(python, *found, accelerator)
    raise CannotBundle(
        f"--platform {platform_tag}: must name a C library, as in manylinux_2_28_x86_64; "
        "torch has no builds for musl, and the bundle's installer is for Linux"
    )


def parse_manylinux(platform_tag: str) -> tuple[Glibc, str] | None:
    """Return the oldest C library and the machine that a tag names; None where it names none."""
    for minor, name in _OLD_NAMES.items():
        platform_tag = platform_tag.replace(f"manylinux{name}_", f"manylinux_2_{minor}_")
    found = re.fullmatch(r"manylinux_(\d+)_(\d+)_([a-z0-9_]+)", platform_tag)
    return ((int(found[1]), int(found[2])), found[3]) if found else None


def run(command: Sequence[str], given: str = "") -> str:
    """Run a program and return its output; its failure raises `CannotBundle` in its own words."""
    # Where nothing is given, it has the caller's input: ssh-keygen asks for passphrases there.
    done = subprocess.run(command, input=given or None, capture_output=True, text=True)
    if done.returncode != 0:
        raise CannotBundle(done.stderr.strip())
    return done.stdout
