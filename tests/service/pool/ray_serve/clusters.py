"""A real cluster for tests: one node, two replicas of real workers, and a front end before them."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import psutil

from tests.listening import free_port
from upscaled.pool.ray_serve.options import NODE_ENVIRONMENT

REPLICAS = 2
SLOTS = 4
QUEUE = 10
BIN = Path(sys.executable).parent

has_ray = find_spec("ray") is not None


@dataclass
class Cluster:
    """A running cluster. `environment` has what a front end or command needs to reach it."""

    node: psutil.Process
    environment: Mapping[str, str]
    folder: Path

    def replicas(self) -> list[psutil.Process]:
        """The processes of the replicas; each is one that speaks to the cluster."""
        return [each for each in self._processes() if "ServeReplica" in _command_of(each)]

    def controllers(self) -> list[psutil.Process]:
        """The process of Serve's controller."""
        return [each for each in self._processes() if "ServeController" in _command_of(each)]

    def workers(self) -> list[psutil.Process]:
        """The workers under the replicas."""
        return [each for each in self._processes() if "upscaled.worker.main" in _command_of(each)]

    def deploy(self, replicas: int = REPLICAS) -> None:
        """Deploy the replicas as the page says; they are ready some seconds later."""
        config = self.run("upscaled", "cluster", "manifest", "--replicas", str(replicas)).stdout
        file = self.folder / "serve.yaml"
        file.write_text(config)
        self.run("serve", "run", "--non-blocking", str(file))

    def run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run an installed program that reaches the cluster."""
        finished = subprocess.run(
            [str(BIN / program), *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert finished.returncode == 0, finished.stdout + finished.stderr
        return finished

    def _processes(self) -> list[psutil.Process]:
        return self.node.children(recursive=True)


@contextmanager
def running_cluster(data_dir: Path, **settings: str) -> Iterator[Cluster]:
    """Run a cluster of one node until the block ends; its workers are those of the product.

    Args:
        settings: further variables of the node.
    """
    port = free_port()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("UPSCALED_")}
    environment = {
        **kept,
        "RAY_ADDRESS": f"127.0.0.1:{port}",
        **NODE_ENVIRONMENT,
        "RAY_AUTH_TOKEN": "0" * 32,
        "PYTHONWARNINGS": "ignore",
        "UPSCALED_DATA_DIR": str(data_dir),
        "UPSCALED_PRECISION": "exact",
        "UPSCALED_AUTO_BUDGET_S": "0",
        "UPSCALED_JOBS_PER_WORKER": str(SLOTS),
        "UPSCALED_MAX_QUEUE": str(QUEUE),
        **settings,
    }
    # A short path: it holds sockets, whose names may have 107 bytes.
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True) as home:
        command = [str(BIN / "ray"), "start", "--head", "--block", "--num-cpus", str(REPLICAS)]
        command += ["--include-dashboard", "false", "--object-store-memory", "200000000"]
        command += ["--node-ip-address", "127.0.0.1", "--port", str(port), "--temp-dir", home]
        with subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as starting:
            cluster = Cluster(psutil.Process(starting.pid), environment, Path(home))
            try:
                _wait_listening(port)
                cluster.deploy()
                yield cluster
            finally:
                _end(cluster.node)


def _wait_listening(port: int) -> None:
    give_up_at = time.monotonic() + 100
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert time.monotonic() < give_up_at, "the cluster does not start"
            time.sleep(0.1)
        else:
            return


def _end(node: psutil.Process) -> None:
    processes = [*node.children(recursive=True), node]
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=60)


def _command_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""
