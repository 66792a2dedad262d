"""The images that tests of containers share: each is built once, on a bare Debian."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.debian import require_programs
from tests.docker.buildah import Buildah
from tests.docker.container import CONTAINER_PROGRAMS
from tests.docker.engine import ENGINE_PROGRAMS
from tests.docker.stand_ins import build_stand_ins

ROOT = Path(__file__).resolve().parents[2]
BASE = "python:3.11-slim"
IMAGE = "upscaled:cpu"
CLUSTER_IMAGE = "upscaled:cpu-cluster"
VERSION = "12.34.56"


@pytest.fixture(scope="package")
def image_store(debian_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Buildah]:
    """Make a store of images that holds `BASE`, the bare Debian."""
    require_programs("buildah", *CONTAINER_PROGRAMS)
    folder = tmp_path_factory.mktemp("buildah")
    buildah = Buildah(folder)
    buildah.import_root(debian_root, BASE)
    yield buildah
    buildah.run("umount", "--all")
    shutil.rmtree(folder)


@pytest.fixture(scope="package")
def buildah(image_store: Buildah) -> Buildah:
    """Build the image in that store."""
    build(image_store, IMAGE)
    return image_store


@pytest.fixture(scope="package")
def cluster_images(image_store: Buildah, tmp_path_factory: pytest.TempPathFactory) -> Buildah:
    """Build the image with Ray and what stands in for PostgreSQL and a bucket in that store."""
    require_programs(*ENGINE_PROGRAMS)
    build(image_store, CLUSTER_IMAGE, EXTRAS="cluster")
    build_stand_ins(image_store, BASE, tmp_path_factory.mktemp("stand-ins"))
    return image_store


def build(store: Buildah, image: str, **arguments: str) -> None:
    """Build an image of the service, with further arguments of its Dockerfile."""
    # An empty index: torch comes from wherever pip is configured to look on this machine.
    arguments |= {"CPU_TORCH_INDEX_URL": "", "BASE_IMAGE": BASE, "UPSCALED_VERSION": VERSION}
    store.build(ROOT, ROOT / "docker" / "Dockerfile", image, arguments)
