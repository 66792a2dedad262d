"""compose.yaml brought up by a real engine, Podman: a photo goes in through the published port."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from PIL import Image

from tests.debian import require_programs
from tests.docker.buildah import Buildah
from tests.docker.conftest import IMAGE, ROOT
from tests.listening import free_port

SAMPLE = ROOT / "scripts" / "sample" / "cat.jpg"
COMPOSE_FILE = ROOT / "docker" / "compose.yaml"
ENGINE = """\
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
"""
"""What works in a small virtual machine, too: without systemd, on cgroups of version 1."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@dataclass(frozen=True, slots=True)
class Engine:
    """Podman on the store that holds the image, and podman-compose that drives it."""

    options: list[str]
    environment: dict[str, str]

    def podman(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self._run(["podman", *self.options, *arguments])

    def compose(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "podman_compose", "--podman-args", " ".join(self.options)]
        return self._run([*command, "--file", str(COMPOSE_FILE), "--profile", "cpu", *arguments])

    def _run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=300
        )


@pytest.fixture(scope="module")
def engine(buildah: Buildah, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    require_programs("podman", "runc")
    folder = tmp_path_factory.mktemp("podman")
    (folder / "containers.conf").write_text(ENGINE)
    environment = os.environ | {
        "CONTAINERS_CONF": str(folder / "containers.conf"),
        "UPSCALED_PORT": str(free_port()),
        "COMPOSE_PROJECT_NAME": folder.name,
    }
    engine = Engine(buildah.store_options, environment)
    tried = engine.podman("run", "--rm", "--pull=never", IMAGE, "true")
    if tried.returncode != 0:
        pytest.skip(f"no container engine runs here: {tried.stderr.strip()}")
    return engine


@pytest.fixture
def project(engine: Engine) -> Iterator[Engine]:
    yield engine
    engine.compose("down", "--volumes", "--timeout", "60")


def _start(engine: Engine) -> str:
    """Bring the profile up, wait until it is ready, and return its URL."""
    started = engine.compose("up", "--detach", "--no-build")
    assert started.returncode == 0, started.stderr
    url = f"http://127.0.0.1:{engine.environment['UPSCALED_PORT']}"
    deadline_s = time.monotonic() + 120
    while True:
        with suppress(httpx.TransportError):
            if httpx.get(f"{url}/readyz", timeout=5).status_code == 200:
                return url
        assert time.monotonic() < deadline_s, engine.compose("logs").stdout
        time.sleep(0.5)


def _send(url: str, key: str) -> httpx.Response:
    return httpx.post(
        f"{url}/v1/upscale",
        headers={"X-API-KEY": key, "Accept": "image/*"},
        files={"image": SAMPLE.read_bytes()},
        data={"scale": "2"},
        timeout=240,
    )


def test_a_photo_is_answered_and_the_key_outlives_the_container(
    project: Engine, tmp_path: Path
) -> None:
    url = _start(project)
    made = project.compose("exec", "-T", "upscaled-cpu", "upscaled", "keys", "create", "caller")
    assert made.returncode == 0, made.stderr
    key = made.stdout.split()[-1]
    answer = _send(url, key)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg")
    result = tmp_path / "result.jpg"
    result.write_bytes(answer.content)
    with Image.open(SAMPLE) as before, Image.open(result) as after:
        assert after.size == (before.width * 2, before.height * 2)
    stopped = project.compose("down", "--timeout", "60")
    assert stopped.returncode == 0, stopped.stderr
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{url}/healthz", timeout=5)
    assert _send(_start(project), key).status_code == 200
