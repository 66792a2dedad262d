"""Container image of a release, in a file that Docker and Podman load, with the digest to pin."""

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from scripts.releasing.cutting import CannotRelease

Accelerator = Literal["cpu", "cuda"]
BUILDERS = ("buildah", "podman")


@dataclass(frozen=True, slots=True)
class ImageSource:
    """What an image is built from. revision: the commit's hash; committed_at_s: its Unix time."""

    root: Path
    version: str
    revision: str
    committed_at_s: int
    accelerator: Accelerator = "cpu"

    @property
    def name(self) -> str:
        return f"upscaled:{self.version}-{self.accelerator}"


def find_builder() -> str:
    """Return the program that builds images here.

    Raises:
        CannotRelease: there is none.
    """
    for program in BUILDERS:
        if shutil.which(program):
            return program
    raise CannotRelease(f"no {' or '.join(BUILDERS)} here to build the image: --without-image")


def build_image(
    source: ImageSource, folder: Path, builder: Sequence[str], options: Sequence[str] = ()
) -> str:
    """Build the image, write it to `folder`, and return its digest.

    The digest is that of the image's configuration: it names every layer's content, and is the same
    before and after `docker load` and whichever registry it is pushed to.

    Args:
        builder: the command of buildah or podman, with options of its own.
        options: more options of its `build`.

    Raises:
        CannotRelease: the builder failed; what it printed has the reason.
    """
    digest_file = folder / f"{_stem(source)}.image-id"
    command = [*builder, "build", "--format", "docker", "--tag", source.name]
    command += ["--file", str(source.root / "docker" / "Dockerfile")]
    command += ["--timestamp", str(source.committed_at_s), "--iidfile", str(digest_file)]
    arguments = {
        "ACCELERATOR": source.accelerator,
        "UPSCALED_VERSION": source.version,
        "UPSCALED_REVISION": source.revision,
    }
    for name, value in arguments.items():
        command += ["--build-arg", f"{name}={value}"]
    _run([*command, *options, str(source.root)])
    archive = folder / f"{_stem(source)}.image.tar"
    _run([*builder, "push", source.name, f"docker-archive:{archive}:{source.name}"])
    digest = digest_file.read_text().strip()
    digest_file.write_text(f"{digest}\n")  # a whole line, for diff
    return digest


def _stem(source: ImageSource) -> str:
    return f"upscaled-{source.version}-{source.accelerator}"


def _run(command: Sequence[str]) -> None:
    if subprocess.run(command, stdout=subprocess.DEVNULL).returncode != 0:
        raise CannotRelease(f"{command[0]} failed: {' '.join(command)}")
