"""Bring together every wheel that upscaled needs on a target: chosen by uv, downloaded by pip."""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.bundling.parts import Wheel, read_wheel
from scripts.bundling.target import CannotBundle, Target

ROOT = Path(__file__).resolve().parents[2]
FREE_LOCKS = ("requirements-cuda.lock", "requirements-torch.lock")
"""Of these, a build of torch from another index than the default may need other versions."""


@dataclass(frozen=True, slots=True)
class Need:
    """A package on the target. requirement: for pip, by hash; by: the packages that need it."""

    requirement: str
    by: tuple[str, ...]


Needs = Mapping[str, Need]


def gather(target: Target, extras: Sequence[str], folder: Path) -> tuple[list[Wheel], Needs]:
    """Collect every wheel for the target in `folder`: upscaled, all it needs there, and pip.

    pip is for the installer: Debian's Python has none unless python3-venv is there.

    Raises:
        CannotBundle: there is no wheel of something for the target, or one is damaged or does not
            suit another; the text is pip's or uv's own.
    """
    upscaled = build_upscaled(folder)
    wanted = [f"upscaled[{','.join(extras)}] @ {upscaled.resolve().as_uri()}", "pip"]
    torch = (ROOT / "requirements-torch.lock").read_text().split()[-1]
    needs = take_torch(torch, wanted, target, folder)
    print(f"torch is here; downloading the rest of {len(needs)} wheels", file=sys.stderr)
    others = [need.requirement for need in needs.values() if "==" in need.requirement]
    download(others, target, folder)
    return [read_wheel(path) for path in sorted(folder.iterdir())], needs


def build_upscaled(folder: Path) -> Path:
    """Build the wheel of this source tree; the same bytes for the same tree."""
    command = ["wheel", "-qq", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    _pip([*command, str(ROOT)])
    (path,) = folder.glob("upscaled-*.whl")
    return path


def take_torch(pinned: str, wanted: Sequence[str], target: Target, folder: Path) -> Needs:
    """Download torch in the build of the target's accelerator, from the first source with it.

    Returns:
        What `wanted` needs with that torch, itself included.

    Raises:
        CannotBundle: no source has it, or nothing goes with it.
    """
    refusals = []
    for requirement, options in _torch_places(pinned, target):
        try:
            (torch,) = download([requirement], target, folder, options)
        except CannotBundle as error:
            place = options[-1] if options else "the index"
            refusals.append(f"  {place}: {str(error).splitlines()[0]}")
            continue
        needs = resolve([*wanted, f"torch @ {torch.resolve().as_uri()}"], target)
        has_cuda = any(name.startswith(("nvidia-", "cuda-")) for name in needs)
        if has_cuda == (target.accelerator == "cuda"):
            return needs
        torch.unlink()
        refusals.append(f"  {torch.name} is not a build for {target.accelerator}")
    build = f"{pinned} for {target.accelerator}, Python {target.python}, {target.machine}"
    advice = "TORCH_INDEX_URL can name another index"
    raise CannotBundle("\n".join([f"there is no {build}:", *refusals, advice]))


def _torch_places(pinned: str, target: Target) -> list[tuple[str, list[str]]]:
    """List requirements of torch with pip's options for them, best first."""
    build = "cpu" if target.accelerator == "cpu" else "default"
    listed = _run([str(ROOT / "scripts" / "torch_sources"), build])
    # The places' own names come first on each line.
    places = [(pinned, line.split()[1:]) for line in listed.splitlines()]
    if target.accelerator == "cuda" and "TORCH_INDEX_URL" not in os.environ:
        # Three equal signs: a CPU build on disk, 2.13.0+cpu, would count as the newer version.
        places.append((pinned.replace("==", "==="), []))
    return places


def resolve(wanted: Sequence[str], target: Target, locks_dir: Path = ROOT) -> Needs:
    """Choose what `wanted` needs on the target: in the versions and by the hashes of the locks.

    What the locks lack, or have for another build of torch, is as the index has it.

    Raises:
        CannotBundle: a version of the locks is not there, or does not suit a package.
    """
    locks = sorted(locks_dir.glob("requirements*.lock"))
    command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--no-python-downloads"]
    # Only markers depend on the C library here: which files suit is pip's to decide.
    command += ["--python-platform", f"{target.machine}-manylinux_2_40", "--only-binary", ":all:"]
    command += ["--python-version", target.python, "--generate-hashes", "--annotation-style=line"]
    command += [f"--constraint={lock}" for lock in locks if lock.name not in FREE_LOCKS]
    with tempfile.TemporaryDirectory() as folder:
        found, listed = Path(folder, "found.txt"), Path(folder, "wanted.in")
        listed.write_text("\n".join([*_index_lines(), *wanted]))
        # uv keeps the hashes that the file it writes to has already.
        locked = "\n".join(lock.read_text() for lock in locks)
        found.write_text(re.sub(r"^-.*", "", locked, flags=re.MULTILINE))
        _run([*command, "--output-file", str(found), str(listed)])
        text = found.read_text()
    blocks = re.findall(r"^(\S+?)((?:==| @ )[^#]+?)\s+# via (.+)", text, re.MULTILINE)
    needs = {}
    for name, pin, by in blocks:
        packages = [each for each in by.split(", ") if each != name and not each.startswith("-")]
        needs[name] = Need(name + pin, tuple(packages))
    return needs


def _index_lines() -> list[str]:
    """Write where pip is configured to look as lines of a requirements file, for uv.

    Not its extra indexes: of a version that several have, uv would see the files of one alone.
    """
    names = r"^\S+\.(index-url|find-links|no-index)='(.+)'$"
    # The environment's own stand first, as `:env:.index-url`.
    found = dict(reversed(re.findall(names, _pip(["config", "list"]), re.MULTILINE)))
    lines = ["--no-index"] if found.pop("no-index", "0") in ("1", "true") else []
    return lines + [f"--{name} {place}" for name in found for place in found[name].split()]


def download(
    requirements: Sequence[str], target: Target, folder: Path, options: Sequence[str] = ()
) -> list[Path]:
    """Download exactly these as wheels for the target.

    requirements: lines as in pip's requirement files. Where one has hashes, all must have them.

    Raises:
        CannotBundle: there is none of one of them, or none whose hash is listed.
    """
    before = set(folder.iterdir())
    command = ["download", "-qq", "--no-deps", "--dest", str(folder), *options]
    command += ["--only-binary", ":all:", "--implementation", "cp"]
    command += ["--python-version", target.python]
    command += [f"--platform={tag}" for tag in target.platform_tags()]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as wanted:
        wanted.write("\n".join(requirements))
        wanted.flush()
        _pip([*command, "--requirement", wanted.name])
    return sorted(set(folder.iterdir()) - before)


def _pip(arguments: Sequence[str]) -> str:
    return _run([sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments])


def _run(command: Sequence[str]) -> str:
    finished = subprocess.run(command, capture_output=True, text=True)
    if finished.returncode != 0:
        raise CannotBundle(finished.stderr.strip())
    return finished.stdout
