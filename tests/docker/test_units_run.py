"""The page's units run, by Podman: their command lines, variables and folders as written.

No systemd runs here: `_run` starts what it would, with its variables, rights and writable folders.
"""

import os
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from tests.docker.buildah import Buildah
from tests.docker.conftest import CLUSTER_IMAGE
from tests.docker.engine import start_engine
from tests.docker.pods import Network, Pod, network, require
from tests.docker.sample import fetch_result, is_ready
from tests.docs.blocks import DOCS, read_blocks

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

PAGE = DOCS / "machines.md"

BUCKET = {
    "UPSCALED_S3_ENDPOINT": "http://bucket:5000",
    "AWS_ACCESS_KEY_ID": "any",
    "AWS_SECRET_ACCESS_KEY": "any",
    "AWS_REGION": "us-east-1",
}
"""What the page on buckets adds to `/etc/upscaled.env`."""

_SYSTEMD = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/var/lib/upscaled",
    "USER": "upscaled",
    "LOGNAME": "upscaled",
    "SHELL": "/usr/sbin/nologin",
}
"""The variables that a service of the user `upscaled` always has."""


@dataclass(frozen=True)
class Unit:
    """A unit's settings in their order."""

    lines: tuple[tuple[str, str], ...]

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.lines if key == name]

    def one(self, name: str) -> str:
        (value,) = self.all(name)
        return value


def _read_unit(description: str, instance: str = "") -> Unit:
    (block,) = (
        each for each in read_blocks(PAGE, "ini") if f"Description={description}\n" in each.text
    )
    text = block.text.replace("%i", instance)
    lines = [line.partition("=") for line in text.splitlines() if re.match(r"\w+=", line)]
    return Unit(tuple((name, value) for name, _, value in lines))


def _read_variables(first: str) -> dict[str, str]:
    """Read the block of settings that begins with one of this name."""
    (block,) = (each for each in read_blocks(PAGE, "ini") if each.text.startswith(f"{first}="))
    pairs = (line.partition("=") for line in block.text.splitlines())
    return {name: value for name, _, value in pairs}


def _run(unit: Unit, name: str, pod: Pod, files: Mapping[str, dict[str, str]], *more: str) -> None:
    """Start a unit's command as systemd does; `more` ends the command line."""
    variables = dict(_SYSTEMD)
    for line in unit.all("Environment"):
        variables |= dict(each.split("=", 1) for each in shlex.split(line))
    for file in unit.all("EnvironmentFile"):
        variables |= files[file]  # they win over the unit's own
    words = shlex.split(unit.one("ExecStart"))
    command = [re.sub(r"\$\{(\w+)\}", lambda at: variables[at[1]], word) for word in words]
    assert unit.one("ProtectSystem") == "strict"
    state = pod.make_folder(name)
    os.chown(state, 10001, 10001)
    state.chmod(int(unit.one("StateDirectoryMode"), 8))
    mounts = {state: f"/var/lib/{unit.one('StateDirectory')}", pod.memory: "/dev/shm"}
    mounts |= {pod.make_folder(each.strip("/")): each for each in unit.all("ReadWritePaths")}
    for file in unit.all("EnvironmentFile"):
        copy = pod.make_folder("etc") / Path(file).name
        copy.write_text("".join(f"{key}={value}\n" for key, value in files[file].items()))
        mounts[copy] = file
    options = ["--unsetenv-all"]
    if unit.all("PrivateTmp") == ["yes"]:
        options.append("--tmpfs=/tmp:mode=1777")
    pod.run(name, CLUSTER_IMAGE, [*command, *more], variables, mounts, options)


@pytest.fixture
def net(cluster_images: Buildah, tmp_path: Path) -> Iterator[Network]:
    engine = start_engine(cluster_images, tmp_path, CLUSTER_IMAGE, "cluster")
    with network(engine, "units", tmp_path) as made:
        made.start_state("db.internal", "not-a-real-password", "bucket", "my-bucket")
        yield made


def _wait_started(net: Network, pod: Pod) -> None:
    def has_started() -> bool:
        return "Ray runtime started" in pod.logs()

    net.wait(has_started, f"{pod.name}: ray start")


def test_a_photo_is_answered_by_what_the_three_units_run(net: Network) -> None:
    head, node, front = (net.start(name) for name in ("head", "node", "front"))
    address = f"{head.address}:6379"
    files = {
        "/etc/upscaled-ray.env": _read_variables("RAY_AUTH_MODE") | {"RAY_ADDRESS": address},
        "/etc/upscaled.env": _read_variables("UPSCALED_DATABASE_URL") | BUCKET,
    }
    node_unit = _read_unit("upscaled: node of the Ray cluster")
    # One after the other: on a busy machine Ray gives a start up after 30 s.
    _run(_read_unit("upscaled: head of the Ray cluster"), "ray", head, files)
    _wait_started(net, head)
    _run(node_unit, "ray", node, files, "--num-cpus", "1")
    _wait_started(net, node)
    _run(node_unit, "ray", front, files, "--num-cpus", "0")
    _wait_started(net, front)
    _deploy(node)
    _run(_read_unit("upscaled: front end of the Ray cluster"), "front", front, files)
    url = f"http://{front.address}:8000"
    net.wait(partial(is_ready, url), "the front end is ready")

    key = _make_key(front, "front")
    fetch_result(url, key, files["/etc/upscaled.env"]["UPSCALED_PUBLIC_BASE_URL"])


def test_two_front_ends_of_a_machine_answer_with_one_key(net: Network) -> None:
    shared = _read_variables("UPSCALED_DATABASE_URL") | BUCKET
    own = _read_variables("UPSCALED_DEVICE") | {"UPSCALED_DEVICE": "cpu"}
    machine = net.start("machine")
    for port in ("8001", "8002"):
        files = {"/etc/upscaled.env": shared, f"/etc/upscaled-{port}.env": own}
        _run(_read_unit("upscaled on port %i", port), port, machine, files)
    urls = [f"http://{machine.address}:{port}" for port in ("8001", "8002")]
    for url in urls:
        net.wait(partial(is_ready, url), f"{url} is ready")
    key = _make_key(machine, "8001")
    for url in urls:
        fetch_result(url, key, shared["UPSCALED_PUBLIC_BASE_URL"])


def _make_key(machine: Pod, name: str) -> str:
    """Make a key as the page on proxies says, by the file of settings alone."""
    program = "env $(cat /etc/upscaled.env) /opt/upscaled/bin/upscaled keys create shop"
    return require(machine.execute(name, "env", "-i", "sh", "-c", program)).split()[-1]


def _deploy(node: Pod) -> None:
    """Run the page's commands that make the deployment and check it, for one replica."""
    (text,) = (
        block.text
        for block in read_blocks(PAGE, "bash")
        if block.text.startswith("sudo -u upscaled bash")
    )
    script = text.replace("--replicas 2 --cpus 4 --gpus 1", "--replicas 1")
    assert script != text
    done = node.execute("ray", "bash", "-euc", script.removeprefix("sudo -u upscaled "))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 of 1 take images" in done.stdout
