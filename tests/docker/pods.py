"""Pods of Podman: containers that share network, processes and memory files, as those of a machine.

with pods(engine, folder) as start:
    pod = start("node", "name-in-the-network")
    pod.run("ray", IMAGE, ["ray", "start", ...], environment, {folder: "/tmp"})
"""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.docker.engine import Engine
from tests.docker.stand_ins import MOTO, POSTGRESQL

USER = 10001
"""Of docker/Dockerfile."""

_HARDENED = ["--user", f"{USER}:{USER}", "--read-only", "--read-only-tmpfs=false"]
_HARDENED += ["--cap-drop", "all", "--security-opt", "no-new-privileges"]


@dataclass
class Pod:
    """A pod that runs. folder: holds what its containers share. memory: its files at /dev/shm."""

    engine: Engine
    name: str
    address: str
    folder: Path
    memory: Path
    containers: list[str] = field(default_factory=list)

    def make_folder(self, name: str) -> Path:
        """Make a folder that the containers' user may write to, once."""
        made = self.folder / name
        made.mkdir(mode=0o777, exist_ok=True)
        made.chmod(0o777)
        return made

    def run(
        self,
        name: str,
        image: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        mounts: Mapping[Path, str],
        options: Sequence[str] = (),
    ) -> None:
        """Start a container without rights, whose own files cannot be changed."""
        self._start(
            ["--detach", "--name", f"{self.name}-{name}"],
            image,
            command,
            environment,
            mounts,
            options,
        )
        self.containers.append(f"{self.name}-{name}")

    def run_to_end(
        self,
        image: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        mounts: Mapping[Path, str],
        options: Sequence[str] = (),
    ) -> str:
        """Run such a container until it ends with success, and return its output."""
        return self._start(["--rm"], image, command, environment, mounts, options)

    def _start(
        self,
        how: Sequence[str],
        image: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        mounts: Mapping[Path, str],
        options: Sequence[str],
    ) -> str:
        more = [f"--env={name}={value}" for name, value in environment.items()]
        more += [f"--volume={folder}:{path}" for folder, path in mounts.items()]
        return require(
            self.engine.podman(
                "run",
                "--pull=never",
                "--no-healthcheck",
                f"--pod={self.name}",
                *how,
                *_HARDENED,
                *more,
                *options,
                image,
                *command,
            )
        )

    def execute(self, name: str, *command: str) -> subprocess.CompletedProcess[str]:
        return self.engine.podman("exec", f"{self.name}-{name}", *command)

    def logs(self) -> str:
        """Return the ends of what its containers wrote."""
        written = []
        for each in self.containers:
            logged = self.engine.podman("logs", "--tail", "50", each)
            written.append(f"== {each}\n{logged.stdout}{logged.stderr}")
        return "\n".join(written)


class Network:
    """Pods that reach each other by their names."""

    def __init__(self, engine: Engine, name: str, folder: Path, memory: Path) -> None:
        self._engine = engine
        self.name = name
        self._folder = folder
        self._memory = memory
        self.pods: list[Pod] = []
        self.stores: list[str] = []

    def start(self, name: str, *host_names: str) -> Pod:
        """Start an empty pod; `name` and the others lead to it."""
        whole = f"{self.name}-{name}"
        aliases = [f"--network-alias={each}" for each in (name, *host_names)]
        shared = ["--share", "net,ipc,uts,pid"]
        require(
            self._engine.podman(
                "pod", "create", "--name", whole, "--network", self.name, *aliases, *shared
            )
        )
        require(self._engine.podman("pod", "start", whole))
        first = require(
            self._engine.podman("pod", "inspect", "--format", "{{.InfraContainerID}}", whole)
        )
        address = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        found = require(self._engine.podman("inspect", "--format", address, first))
        pod = Pod(self._engine, whole, found, self._folder / name, self._memory / name)
        pod.folder.mkdir()
        pod.memory.mkdir(mode=0o777)
        pod.memory.chmod(0o777)
        self.pods.append(pod)
        return pod

    def start_state(self, database: str, password: str, bucket_host: str, bucket: str) -> None:
        """Start PostgreSQL with a user `upscaled`, and a server of S3 that holds the bucket."""
        network = ["run", "--detach", "--pull=never", "--no-healthcheck", "--network", self.name]
        names = [f"{self.name}-database", f"{self.name}-store"]
        self.stores += names
        variables = ["--env=POSTGRES_USER=upscaled", f"--env=POSTGRES_PASSWORD={password}"]
        user = ["--user", "postgres", "--network-alias", database]
        require(self._engine.podman(*network, "--name", names[0], *user, *variables, POSTGRESQL))
        alias = ["--network-alias", bucket_host]
        require(self._engine.podman(*network, "--name", names[1], *alias, MOTO))
        make = f"http://127.0.0.1:5000/{bucket}"
        request = (
            f"from urllib.request import *; urlopen(Request({make!r}, method='PUT'), timeout=4)"
        )
        self.wait(
            lambda: self._succeeds(names[0], "pg_isready", "--username", "upscaled"), "PostgreSQL"
        )
        self.wait(lambda: self._succeeds(names[1], "python3", "-c", request), "the bucket")

    def _succeeds(self, container: str, *command: str) -> bool:
        return self._engine.podman("exec", container, *command).returncode == 0

    def wait(self, is_done: Callable[[], bool], what: str, within_s: float = 300) -> None:
        deadline_s = time.monotonic() + within_s
        while not is_done():
            if time.monotonic() > deadline_s:
                logs = "\n".join(pod.logs() for pod in self.pods)
                pytest.fail(f"{what}: not within {within_s:.0f} s\n{logs}")
            time.sleep(1)


def require(done: subprocess.CompletedProcess[str]) -> str:
    """Return what a command printed; fail the test where it failed."""
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


@contextmanager
def network(engine: Engine, name: str, folder: Path) -> Iterator[Network]:
    """Make a network for pods, and remove all that ran in it."""
    require(engine.podman("network", "create", name))
    # Real memory, of which the object store of a machine takes its part.
    memory = Path(tempfile.mkdtemp(prefix="upscaled-test-", dir="/dev/shm"))
    memory.chmod(0o755)
    made = Network(engine, name, folder, memory)
    try:
        yield made
    finally:
        for pod in made.pods:
            engine.podman("pod", "rm", "--force", "--time", "5", pod.name)
        for store in made.stores:
            engine.podman("rm", "--force", "--time", "5", "--volumes", store)
        engine.podman("network", "rm", name)
        shutil.rmtree(memory)
