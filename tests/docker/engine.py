"""Podman, a real container engine, and podman-compose, which brings compose.yaml up with it."""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.debian import require_programs
from tests.docker.buildah import Buildah
from tests.listening import free_port

COMPOSE_FILE = Path(__file__).resolve().parents[2] / "docker" / "compose.yaml"
ENGINE_PROGRAMS = ("podman", "runc")
_SETTINGS = """\
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
"""
"""What works in a small virtual machine, too: without systemd, on cgroups of version 1."""


@dataclass(frozen=True, slots=True)
class Engine:
    """Podman on the store that holds the image, and podman-compose that drives it.

    files: compose files, of which later ones change earlier ones. profile: the one that is run.
    """

    options: list[str]
    environment: dict[str, str]
    files: Sequence[Path]
    profile: str

    @property
    def url(self) -> str:
        """Where the service is published."""
        return f"http://127.0.0.1:{self.environment['UPSCALED_PORT']}"

    def podman(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self._run(["podman", *self.options, *arguments])

    def compose(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "podman_compose", "--podman-args", " ".join(self.options)]
        for file in self.files:
            command += ["--file", str(file)]
        return self._run([*command, "--profile", self.profile, *arguments])

    def _run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=300
        )


def start_engine(
    buildah: Buildah,
    folder: Path,
    image: str,
    profile: str,
    more_files: Sequence[Path] = (),
    **variables: str,
) -> Engine:
    """Return an engine that has run a container of `image`; skip the test where it cannot.

    Args:
        folder: for its configuration; its name becomes the project's.
        variables: what compose.yaml is given.
    """
    require_programs(*ENGINE_PROGRAMS)
    (folder / "containers.conf").write_text(_SETTINGS)
    environment = os.environ | {
        "CONTAINERS_CONF": str(folder / "containers.conf"),
        "UPSCALED_PORT": str(free_port()),
        "COMPOSE_PROJECT_NAME": folder.name,
        **variables,
    }
    # Networks of a run that was killed would be left in /etc/containers, and their names in use.
    options = [*buildah.store_options, f"--network-config-dir={folder / 'networks'}"]
    engine = Engine(options, environment, [COMPOSE_FILE, *more_files], profile)
    tried = engine.podman("run", "--rm", "--pull=never", image, "true")
    if tried.returncode != 0:
        pytest.skip(f"no container engine runs here: {tried.stderr.strip()}")
    return engine
