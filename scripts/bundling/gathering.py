"""Bring together every wheel that upscaled needs on a target: chosen by uv, downloaded by pip."""

import os
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from scripts.bundling.target import CannotBundle, Target, run

ROOT = Path(__file__).resolve().parents[2]
FREE_LOCKS = ("requirements-cuda.lock", "requirements-torch.lock")
"""Of these, a build of torch from another index than the default may need other versions."""


class Need(NamedTuple):
    """A package on the target. requirement: for pip, by hash; by: the packages that need it."""

    requirement: str
    by: tuple[str, ...]


Needs = Mapping[str, Need]


def gather(target: Target, extras: Sequence[str], folder: Path) -> Needs:
    """Collect every wheel for the target in `folder`: upscaled, its needs, and pip to install."""
    upscaled = build_upscaled(folder)
    wanted = [f"upscaled[{','.join(extras)}] @ {upscaled.resolve().as_uri()}", "pip"]
    torch = (ROOT / "requirements-torch.lock").read_text().split()[-1]
    needs = take_torch(torch, wanted, target, folder)
    print(f"torch is here; downloading the rest of {len(needs)} wheels", file=sys.stderr)
    others = [need.requirement for need in needs.values() if "==" in need.requirement]
    download(others, target, folder)
    return needs


def build_upscaled(folder: Path) -> Path:
    """Build the wheel of this source tree; the same bytes for the same tree."""
    _pip("wheel", "-qq", "--no-deps", "--no-build-isolation", f"--wheel-dir={folder}", str(ROOT))
    (path,) = folder.glob("upscaled-*.whl")
    return path


def take_torch(pinned: str, wanted: Sequence[str], target: Target, folder: Path) -> Needs:
    """Download torch in the target's build; return what `wanted` needs with it, itself included."""
    kind = "cpu" if target.accelerator == "cpu" else "default"
    listed = run([str(ROOT / "scripts" / "torch_sources"), kind])
    # The sources' own names come first on each line.
    sources = [(pinned, line.split()[1:]) for line in listed.splitlines()]
    if target.accelerator == "cuda" and "TORCH_INDEX_URL" not in os.environ:
        # Three equal signs: a CPU build on disk, 2.13.0+cpu, would count as the newer version.
        sources.append((pinned.replace("==", "==="), []))
    build = f"{pinned} for {target.accelerator}, Python {target.python}, {target.machine}"
    refusals = [f"there is no {build}:"]
    for requirement, options in sources:
        try:
            (torch,) = download([requirement], target, folder, options)
        except CannotBundle as error:
            refusals.append(f"  {['the index', *options][-1]}: {str(error).splitlines()[0]}")
            continue
        needs = resolve([*wanted, f"torch @ {torch.resolve().as_uri()}"], target)
        has_cuda = any(name.startswith(("nvidia-", "cuda-")) for name in needs)
        if has_cuda == (target.accelerator == "cuda"):
            return needs
        torch.unlink()
        refusals.append(f"  {torch.name} is not a build for {target.accelerator}")
    raise CannotBundle("\n".join([*refusals, "TORCH_INDEX_URL can name another index"]))


def resolve(wanted: Sequence[str], target: Target, locks_dir: Path = ROOT) -> Needs:
    """Choose what `wanted` needs on the target: as the locks have it, else as the index has."""
    locks = sorted(locks_dir.glob("requirements*.lock"))
    command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--no-python-downloads"]
    # Only markers depend on the C library here: which files suit is pip's to decide.
    command += ["--python-platform", f"{target.machine}-manylinux_2_40", "--only-binary", ":all:"]
    command += ["--python-version", target.python, "--generate-hashes", "--annotation-style=line"]
    command += [f"--constraint={lock}" for lock in locks if lock.name not in FREE_LOCKS]
    with tempfile.NamedTemporaryFile("r+", suffix=".txt") as found:
        # uv keeps the hashes that the file it writes to has already.
        locked = "\n".join(lock.read_text() for lock in locks)
        Path(found.name).write_text(re.sub(r"^-.*", "", locked, flags=re.MULTILINE))
        run([*command, "--output-file", found.name, "-"], "\n".join([*_index_lines(), *wanted]))
        text = Path(found.name).read_text()
    block = r"^(\S+?)((?:==| @ )[^#\n]*(?:\n +--hash=.*)*)(?:\s+# via (.+))?"
    needs = {}
    for name, pin, by in re.findall(block, text, re.MULTILINE):
        packages = [each for each in by.split(", ") if each not in ("", name)]
        needs[name] = Need(name + pin.rstrip(), tuple(packages))
    return needs


def _index_lines() -> list[str]:
    """Write where pip is configured to look as lines of a requirements file, for uv."""
    # Not its extra indexes: of a version that several have, uv would see the files of one alone.
    names = r"^\S+\.(index-url|find-links|no-index)='(.+)'$"
    # The environment's own stand first, as `:env:.index-url`.
    found = dict(reversed(re.findall(names, _pip("config", "list"), re.MULTILINE)))
    lines = ["--no-index"] if found.pop("no-index", "0") in ("1", "true") else []
    return lines + [f"--{name} {place}" for name in found for place in found[name].split()]


def download(
    requirements: Sequence[str], target: Target, folder: Path, options: Sequence[str] = ()
) -> list[Path]:
    """Download exactly these lines of a requirements file as wheels for the target."""
    before = set(folder.iterdir())
    suits = [f"--platform={tag}" for tag in target.platform_tags()]
    suits += ["--only-binary=:all:", "--implementation=cp", f"--python-version={target.python}"]
    command = ["download", "-qq", "--no-deps", f"--dest={folder}", *suits, *options]
    _pip(*command, "--requirement=/dev/stdin", given="\n".join(requirements))
    return sorted(set(folder.iterdir()) - before)


def _pip(*arguments: str, given: str = "") -> str:
    return run([sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments], given)
