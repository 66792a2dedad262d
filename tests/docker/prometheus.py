"""A real Prometheus on loopback, with the repository's own configuration but for its targets."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
import yaml

from tests.listening import free_port


@dataclass(frozen=True)
class Prometheus:
    url: str

    def get(self, path: str, **parameters: str) -> Any:
        answer = requests.get(f"{self.url}/api/v1/{path}", params=parameters, timeout=60)
        assert answer.ok, answer.text
        return answer.json()["data"]

    def query(self, expression: str) -> list[float]:
        """Return the values of an expression now, one for each series."""
        return [float(each["value"][1]) for each in self.get("query", query=expression)["result"]]


@contextmanager
def run_prometheus(folder: Path, config_dir: Path, address: str) -> Iterator[Prometheus]:
    """Scrape `address` (host and port) every second for the time of the block.

    config_dir: holds prometheus.yaml and its rules.
    """
    copy = folder / "prometheus"
    shutil.copytree(config_dir, copy)
    config = yaml.safe_load((copy / "prometheus.yaml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    (job,) = config["scrape_configs"]
    job["static_configs"] = [{"targets": [address]}]
    (copy / "prometheus.yaml").write_text(yaml.safe_dump(config))
    port = free_port()
    command = [
        "prometheus",
        f"--config.file={copy / 'prometheus.yaml'}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "prometheus.log").open("w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
        try:
            _wait_ready(f"http://127.0.0.1:{port}", process, folder / "prometheus.log")
            prometheus = Prometheus(f"http://127.0.0.1:{port}")
            _wait_first_scrape(prometheus)  # targets are found with a delay
            yield prometheus
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_first_scrape(prometheus: Prometheus) -> None:
    deadline = time.monotonic() + 30
    while not prometheus.query("up"):
        assert time.monotonic() < deadline, prometheus.get("targets")
        time.sleep(0.1)


def _wait_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 30
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        try:
            if requests.get(f"{url}/-/ready", timeout=2).ok:
                return
        except requests.RequestException:
            pass  # not listening yet
        time.sleep(0.1)
