"""The cluster of compose.yaml brought up by Podman, with stand-ins for database and bucket."""

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import yaml

from tests.docker.buildah import Buildah
from tests.docker.conftest import CLUSTER_IMAGE
from tests.docker.engine import COMPOSE_FILE, Engine, start_engine
from tests.docker.sample import fetch_result, is_ready, send_sample
from tests.docker.stand_ins import MOTO, POSTGRESQL

PASSWORD = "p@ss/w:rd%$ #?"
"""Every character that means something in a URL."""

FRONT, NODE = "cluster-front", "cluster-node"

STAND_INS = f"""\
services:
  cluster-database: {{image: "{POSTGRESQL}"}}
  cluster-bucket: {{image: "{MOTO}"}}
"""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def engine(cluster_images: Buildah, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    folder = tmp_path_factory.mktemp("cluster")
    (folder / "stand-ins.yaml").write_text(STAND_INS)
    return start_engine(
        cluster_images,
        folder,
        CLUSTER_IMAGE,
        "cluster",
        [folder / "stand-ins.yaml"],
        UPSCALED_CLUSTER_TOKEN="a-token-of-this-test",
        UPSCALED_DATABASE_PASSWORD=PASSWORD,
    )


@pytest.fixture
def project(engine: Engine) -> Iterator[Engine]:
    yield engine
    engine.compose("down", "--volumes", "--timeout", "10")


def _wait(engine: Engine, is_done: Callable[[], bool], within_s: float = 300) -> None:
    deadline_s = time.monotonic() + within_s
    while not is_done():
        assert time.monotonic() < deadline_s, engine.compose("logs").stdout
        time.sleep(1)


def _containers(engine: Engine, service: str) -> list[str]:
    label = f"label=com.docker.compose.service={service}"
    return engine.podman("ps", "--all", "--quiet", "--filter", label).stdout.split()


def _start(engine: Engine) -> None:
    """Bring the services up, each once those that it depends on are healthy.

    An engine's own work, but Podman runs no health checks without systemd.
    """
    services = yaml.safe_load(COMPOSE_FILE.read_text())["services"]
    waiting = {
        name: service.get("depends_on", {})
        for name, service in services.items()
        if service["profiles"] == ["cluster"]
    }
    while waiting:
        startable = [name for name, needed in waiting.items() if not needed.keys() & waiting.keys()]
        started = engine.compose("up", "--detach", "--no-build", *startable)
        assert started.returncode == 0, started.stderr
        for name in startable:
            assert {each["condition"] for each in waiting.pop(name).values()} <= {"service_healthy"}
            _wait(engine, partial(_is_healthy, engine, name))


def _is_healthy(engine: Engine, service: str) -> bool:
    checks = [
        engine.podman("healthcheck", "run", container) for container in _containers(engine, service)
    ]
    return [check.returncode for check in checks] == [0] * (2 if service == NODE else 1)


def _deploy_command() -> str:
    """Return what the first lines of compose.yaml run on the head."""
    (command,) = re.findall(
        r"exec cluster-head sh -c \\\n# +'(.+)'$", COMPOSE_FILE.read_text(), re.M
    )
    return str(command)


def _execute(engine: Engine, service: str, *command: str) -> str:
    (container,) = _containers(engine, service)
    done = engine.podman("exec", container, *command)
    assert done.returncode == 0, done.stdout + done.stderr + engine.compose("logs").stdout
    return done.stdout


def _has_both_replicas(engine: Engine) -> bool:
    (front,) = _containers(engine, FRONT)
    checked = engine.podman("exec", front, "upscaled", "cluster", "check").stdout
    return "2 of 2 take images" in checked


def _kill(engine: Engine, container: str) -> None:
    """Kill a container's first process, and all others with it, as the kernel does for memory."""
    pid = int(engine.podman("inspect", "--format", "{{.State.Pid}}", container).stdout)
    assert pid > 0, "it does not run"  # 0 would be this test's own processes
    os.kill(pid, signal.SIGKILL)


def test_a_photo_is_answered_whichever_node_is_killed_and_its_result_is_kept_in_the_bucket(
    project: Engine,
) -> None:
    _start(project)
    _execute(project, "cluster-head", "sh", "-c", _deploy_command())
    _wait(project, partial(is_ready, project.url))
    _wait(project, partial(_has_both_replicas, project))
    made = _execute(project, FRONT, "upscaled", "keys", "create", "caller")
    key = made.split()[-1]

    result = fetch_result(project.url, key)
    for node in _containers(project, NODE):  # each in turn, so that the other answers
        _kill(project, node)
        assert send_sample(project.url, key, "image/*").content == result
        _wait(project, partial(_has_both_replicas, project))
