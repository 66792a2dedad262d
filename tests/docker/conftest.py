"""The image that the tests of the container share: built once, on a bare Debian."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.debian import require_programs
from tests.docker.buildah import Buildah
from tests.docker.container import CONTAINER_PROGRAMS

ROOT = Path(__file__).resolve().parents[2]
BASE = "python:3.11-slim"
IMAGE = "upscaled:cpu"
VERSION = "12.34.56"


@pytest.fixture(scope="package")
def buildah(debian_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Buildah]:
    """Build the image in a store of its own."""
    require_programs("buildah", *CONTAINER_PROGRAMS)
    folder = tmp_path_factory.mktemp("buildah")
    buildah = Buildah(folder)
    buildah.import_root(debian_root, BASE)
    # An empty index: torch comes from wherever pip is configured to look on this machine.
    arguments = {"CPU_TORCH_INDEX_URL": "", "BASE_IMAGE": BASE, "UPSCALED_VERSION": VERSION}
    buildah.build(ROOT, ROOT / "docker" / "Dockerfile", IMAGE, arguments)
    yield buildah
    buildah.run("umount", "--all")
    shutil.rmtree(folder)
