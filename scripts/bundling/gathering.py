"""Bring together every wheel that upscaled needs on a target: built here, or found by pip."""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

from scripts.bundling.target import Target
from scripts.bundling.wheels import UnfitWheel, Wheel, needs_of_all, read_wheel

ROOT = Path(__file__).resolve().parents[2]
_PARTS = ("", "-torch", "-cuda", "-weights", "-extras", "-dev")
LOCKS = tuple(f"requirements{part}.lock" for part in _PARTS)
INSTALLER = canonicalize_name("pip")
"""Installer of the wheels over there: Debian's Python has no pip unless python3-venv is there."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Pin:
    """Version of a package in the locks. hashes: of its files, as pip's options; "" for torch."""

    version: str
    hashes: str


Pins = dict[NormalizedName, Pin]


class NotFound(RuntimeError):
    """pip found no wheel for the target; the text is pip's own."""


def gather(target: Target, extras: Sequence[str], folder: Path, say: Say) -> list[Wheel]:
    """Collect every wheel for the target in `folder`: upscaled, all it needs there, and pip.

    Needs become known wave by wave: a wheel says what it needs only once it is here. What the locks
    pin is taken in that version and by its hash; torch in that version; the rest, which builds of
    torch from another index than the default need, as torch itself says.

    Raises:
        NotFound: there is no wheel of something for the target.
        UnfitWheel: one is damaged, or does not go with another.
    """
    pins = read_pins()
    upscaled = build_upscaled(folder)
    wheels = {upscaled.name: upscaled}
    _take(wheels, _download_pinned([Requirement(INSTALLER)], pins, target, folder))
    while missing := _missing(upscaled, extras, wheels, target):
        if missing.pop(canonicalize_name("torch"), None):
            say("torch")
            pinned = f"torch=={pins[canonicalize_name('torch')].version}"
            _take(wheels, [take_torch(pinned, target, folder)])
        if missing:
            say(", ".join(sorted(missing)))
            _take(wheels, _download_pinned(missing.values(), pins, target, folder))
    return sorted(wheels.values(), key=lambda wheel: wheel.name)


def read_pins(folder: Path = ROOT) -> Pins:
    """Read the versions and hashes that the lock files in `folder` pin."""
    pins: Pins = {}
    for lock in LOCKS:
        for line in (folder / lock).read_text().replace("\\\n", " ").splitlines():
            if found := re.match(r"([a-z0-9.-]+)==([^\s;]+)", line):
                hashes = " ".join(re.findall(r"--hash=\S+", line))
                pins[canonicalize_name(found[1])] = Pin(found[2], hashes)
    return pins


def build_upscaled(folder: Path) -> Wheel:
    """Build the wheel of this source tree; the same bytes for the same tree."""
    command = ["wheel", "-qq", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    _pip([*command, str(ROOT)])
    (path,) = folder.glob("upscaled-*.whl")
    return read_wheel(path)


def take_torch(pinned: str, target: Target, folder: Path) -> Wheel:
    """Download torch in the build of the target's accelerator, from the first source with it.

    Raises:
        NotFound: no place has it.
    """
    refusals = []
    for requirement, options in _torch_places(pinned, target):
        try:
            (wheel,) = download([requirement], target, folder, options)
        except NotFound as error:
            place = options[-1] if options else "the index"
            refusals.append(f"  {place}: {str(error).splitlines()[0]}")
            continue
        if wheel.is_cuda_build(target) == (target.accelerator == "cuda"):
            return wheel
        wheel.path.unlink()
        refusals.append(f"  {wheel.path.name} is not a build for {target.accelerator}")
    wanted = f"{pinned} for {target.accelerator}, Python {target.python}, {target.machine}"
    raise NotFound(
        "\n".join([f"there is no {wanted}:", *refusals, "TORCH_INDEX_URL can name another index"])
    )


def _torch_places(pinned: str, target: Target) -> list[tuple[str, list[str]]]:
    """List requirements of torch with pip's options for them, best first."""
    build = "cpu" if target.accelerator == "cpu" else "default"
    command = [str(ROOT / "scripts" / "torch_sources"), build]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    # The places' own names come first on each line.
    places = [(pinned, line.split()[1:]) for line in listed.splitlines()]
    if target.accelerator == "cuda" and "TORCH_INDEX_URL" not in os.environ:
        # Three equal signs: a CPU build on disk, 2.13.0+cpu, would count as the newer version.
        places.append((pinned.replace("==", "==="), []))
    return places


def download(
    requirements: Sequence[str], target: Target, folder: Path, options: Sequence[str] = ()
) -> list[Wheel]:
    """Download exactly these as wheels for the target.

    requirements: lines as in pip's requirement files. Where one has hashes, all must have them.

    Raises:
        NotFound: there is none of one of them, or none whose hash is listed.
    """
    before = set(folder.iterdir())
    command = ["download", "-qq", "--no-deps", "--dest", str(folder), *options]
    command += ["--only-binary", ":all:", "--implementation", "cp"]
    command += ["--python-version", target.python]
    for tag in target.platform_tags():
        command += ["--platform", tag]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as wanted:
        wanted.write("\n".join(requirements))
        wanted.flush()
        _pip([*command, "--requirement", wanted.name])
    return [read_wheel(path) for path in sorted(set(folder.iterdir()) - before)]


def _download_pinned(
    needs: Iterable[Requirement], pins: Pins, target: Target, folder: Path
) -> list[Wheel]:
    """Download by hash what the locks pin; the rest, for torch of other indexes, without."""
    hashed, others = [], []
    for need in needs:
        pin = pins.get(canonicalize_name(need.name))
        if pin and need.specifier.contains(pin.version):
            hashed.append(f"{need.name}=={pin.version} {pin.hashes}")
        else:
            others.append(f"{need.name}{need.specifier}")
    return [
        wheel for lines in (hashed, others) if lines for wheel in download(lines, target, folder)
    ]


def _missing(
    root: Wheel, extras: Sequence[str], wheels: dict[NormalizedName, Wheel], target: Target
) -> dict[NormalizedName, Requirement]:
    needs = needs_of_all(root, extras, wheels, target)
    named = {canonicalize_name(need.name): need for need in needs}
    return {name: need for name, need in named.items() if name not in wheels}


def _take(wheels: dict[NormalizedName, Wheel], more: Sequence[Wheel]) -> None:
    for wheel in more:
        if wheel.name in wheels:
            raise UnfitWheel(f"{wheel.path.name}: {wheels[wheel.name].path.name} is there already")
        wheels[wheel.name] = wheel


def _pip(arguments: Sequence[str]) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    finished = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    if finished.returncode != 0:
        raise NotFound(finished.stderr.strip())
