"""compose.yaml brought up by a real engine, Podman: a photo goes in through the published port."""

import time
from collections.abc import Iterator

import pytest
import requests

from tests.docker.buildah import Buildah
from tests.docker.conftest import IMAGE
from tests.docker.engine import Engine, start_engine
from tests.docker.sample import check_result, is_ready, send_sample

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def engine(buildah: Buildah, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return start_engine(buildah, tmp_path_factory.mktemp("podman"), IMAGE, "cpu")


@pytest.fixture
def project(engine: Engine) -> Iterator[Engine]:
    yield engine
    engine.compose("down", "--volumes", "--timeout", "60")


def _start(engine: Engine) -> str:
    """Bring the profile up, wait until it is ready, and return its URL."""
    started = engine.compose("up", "--detach", "--no-build")
    assert started.returncode == 0, started.stderr
    deadline_s = time.monotonic() + 120
    while True:
        if is_ready(engine.url):
            return engine.url
        assert time.monotonic() < deadline_s, engine.compose("logs").stdout
        time.sleep(0.5)


def test_a_photo_is_answered_and_the_key_is_kept_over_a_new_container(project: Engine) -> None:
    url = _start(project)
    made = project.compose("exec", "-T", "upscaled-cpu", "upscaled", "keys", "create", "caller")
    assert made.returncode == 0, made.stderr
    key = made.stdout.split()[-1]
    answer = send_sample(url, key, "image/*")
    assert answer.headers["content-type"] == "image/jpeg"
    check_result(answer.content)
    stopped = project.compose("down", "--timeout", "60")
    assert stopped.returncode == 0, stopped.stderr
    with pytest.raises(requests.ConnectionError):
        requests.get(f"{url}/healthz", timeout=60)
    send_sample(_start(project), key, "image/*")
