"""Run a cluster of seven machines: head, two nodes, two front ends, a database and a bucket.

head, a, b, f1, f2     each a node of Ray; a and b have a CPU and one replica each
db, store              PostgreSQL, and moto's S3 server
this machine           the clients
"""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import requests
import yaml

from tests.buckets import VARIABLES, Bucket
from tests.cluster.machines import Machine, wait_until
from tests.databases import postgresql_command, unprivileged_user
from tests.running import REPOSITORY_DIR, UPSCALED
from upscaled.pool.ray_serve.options import NODE_ENVIRONMENT

NODES = ("a", "b")
FRONT_ENDS = ("f1", "f2")
RAY_MACHINES = ("head", *NODES, *FRONT_ENDS)
MACHINES = (*RAY_MACHINES, "db", "store")
MODEL_X4 = "upscaled-x4-faithful"
PORT = 8000
SLOTS = 4
QUEUE = 10
KEY = f"upk_{'0123456789abcdef'}_{'A-_z' * 10}xyz"
CREDITS = 1_000_000
_RAY = str(Path(sys.executable).with_name("ray"))
_SERVE = str(Path(sys.executable).with_name("serve"))

# As systemd does with Restart=always and KillMode=control-group.
_UNIT = """
while :; do
    {command}
    pkill -9 -f 'ray::|raylet/|ray/_private|ray/dashboard|gcs_server'
    sleep 2
done
"""


@dataclass
class Bed:
    """The machines, by name, and what runs on them."""

    folder: Path
    machines: dict[str, Machine]
    bucket: Bucket
    programs: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Machine:
        return self.machines[name]

    @property
    def database_url(self) -> str:
        return f"postgresql://tester@{self['db'].address}/postgres"

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables of all programs of the cluster, and of commands on this machine."""
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        return {
            **kept,
            **NODE_ENVIRONMENT,
            **VARIABLES,
            "RAY_ADDRESS": f"{self['head'].address}:6379",
            "RAY_AUTH_TOKEN": "0" * 32,
            # By default replicas and their workers yield to everything else on the machine.
            "RAY_worker_niceness": "0",
            "PYTHONWARNINGS": "ignore",
            "OPENBLAS_NUM_THREADS": "1",
            "PYTHONPATH": str(REPOSITORY_DIR),  # Serve imports deployments of these tests
            "UPSCALED_PACKAGED_MODELS": "false",
            "UPSCALED_PRECISION": "exact",
            # `auto` chooses by measured speed, which the single machine does not share.
            "UPSCALED_MODEL_X4": MODEL_X4,
            "UPSCALED_JOBS_PER_WORKER": str(SLOTS),
            "UPSCALED_MAX_QUEUE": str(QUEUE),
            "UPSCALED_RESULTS_URL": self.bucket.url,
            "UPSCALED_S3_ENDPOINT": self.bucket.endpoint,
            "UPSCALED_DATABASE_URL": self.database_url,
            "UPSCALED_FIRST_KEY_FILE": str(self.folder / "first.key"),
            "UPSCALED_METERING": "true",
            "UPSCALED_RATE_PER_S": "100000",
            "UPSCALED_RATE_BURST": "100000",
        }

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def url(self, front_end: str, port: int = PORT) -> str:
        return f"http://{self[front_end].address}:{port}"

    def start_ray(self, name: str) -> None:
        """Start a machine's node of Ray, as its unit does."""
        here = self[name]
        command = [_RAY, "start", "--block", "--node-ip-address", here.address]
        command += ["--num-cpus", "1" if name in NODES else "0"]
        command += ["--object-store-memory", "400000000", "--include-log-monitor", "false"]
        environment = {**self.environment, "UPSCALED_DATA_DIR": str(self.folder / f"{name}.data")}
        if name == "head":
            command += ["--head", "--port", "6379", "--include-dashboard", "false"]
            command += ["--temp-dir", str(here.shared)]
            environment |= {
                "RAY_gcs_storage": "rocksdb",
                "RAY_gcs_storage_path": str(self.folder / "gcs"),
            }
            del environment["RAY_ADDRESS"]
        else:
            command += ["--address", self.environment["RAY_ADDRESS"]]
        script = self.folder / f"{name}.sh"
        script.write_text(_UNIT.format(command=shlex.join(command)))
        self.programs[f"ray-{name}"] = here.start(
            ["bash", str(script)], environment, self.log(f"ray-{name}")
        )

    def wait_ray(self, name: str) -> None:
        """Wait until a node of Ray runs."""
        log = self.log(f"ray-{name}")
        wait_until(lambda: "Ray runtime started" in log.read_text(), f"the node of {name} runs")

    def findings(self) -> dict[str, str]:
        """Return what `upscaled cluster check` finds, by the name of the check."""
        command = [*UPSCALED, "cluster", "check", "--json"]
        report = json.loads(self.run(*command, statuses=(0, 1)))  # 1: there are failures
        return {each["check"]: each["found"] for each in report["findings"]}

    def start_front_end(
        self, name: str, port: int = PORT, program: Sequence[str] = UPSCALED, **settings: str
    ) -> None:
        """Start a front end; a second one of its machine has another port."""
        label = name if port == PORT else f"{name}-{port}"
        environment = {
            **self.environment,
            "UPSCALED_CLUSTER": "ray",
            "UPSCALED_DATA_DIR": str(self.folder / f"{label}.data"),
            "UPSCALED_ADVERTISED_URL": self.url(name, port),
            **settings,
        }
        command = [*program, "serve", "--host", "0.0.0.0", "--port", str(port)]
        self.programs[label] = self[name].start(command, environment, self.log(label))

    def stop_front_end(self, name: str, within_s: float, port: int = PORT) -> int:
        """Stop a front end as its unit does, and return its exit status."""
        self._supervisor(name, port).terminate()
        return self.programs[name if port == PORT else f"{name}-{port}"].wait(within_s)

    def start_database(self) -> None:
        folder, user = self.folder / "pg", unprivileged_user()
        command = postgresql_command(folder, folder / "data", "*")
        log = self.log("postgresql")
        self.programs["db"] = self["db"].start(command, self.environment, log, user or 0)
        wait_until(self._database_answers, "PostgreSQL answers")

    def kill_database(self) -> None:
        for process in self["db"].find("postgres"):
            with suppress(psutil.NoSuchProcess):  # it may end with the first
                process.kill()
        self.programs["db"].wait(60)

    def deploy(self, replicas: int = 2, *, build: str = "", **options: object) -> None:
        """Deploy the replicas as the page does; they are ready some seconds later.

        Args:
            build: makes the application, where it is not that of the product.
            options: of the deployment, beside those of the manifest or in place of them.
        """
        manifest = self.run(*UPSCALED, "cluster", "manifest", "--replicas", str(replicas))
        config = yaml.safe_load(manifest)
        (application,) = config["applications"]
        application["import_path"] = build or application["import_path"]
        application["deployments"][0] |= options
        file = self.folder / "serve.yaml"
        file.write_text(yaml.safe_dump(config))
        self.run(_SERVE, "run", "--non-blocking", str(file))

    def run(self, *command: str, statuses: Collection[int] = (0,)) -> str:
        """Run a program on the head's machine, and return its standard output."""
        environment = {**self.environment, "RAY_ADDRESS": "auto"}
        return self["head"].run(command, environment, statuses=statuses)

    def restart_ray(self, name: str) -> None:
        """Stop a machine's node of Ray as its unit does; it starts again by itself."""
        for process in self[name].find("ray", "start", "--block"):
            process.terminate()

    def replicas(self) -> list[psutil.Process]:
        return [each for name in NODES for each in self.replicas_on(name)]

    def replicas_on(self, name: str) -> list[psutil.Process]:
        return self[name].find("ServeReplica")

    def workers(self) -> list[psutil.Process]:
        return [each for name in NODES for each in self[name].find("upscaled.worker.main")]

    def front_end(self, name: str) -> psutil.Process:
        """Return the process that answers there; its parent supervises it."""
        return self._supervisor(name).children()[0]

    def _supervisor(self, name: str, port: int = PORT) -> psutil.Process:
        return self[name].find("serve", "--port", str(port))[0]

    def metric(self, front_end: str, name: str) -> float:
        """Return a front end's figure; -1 where it does not answer."""
        try:
            text = requests.get(f"{self.url(front_end)}/metrics", timeout=5).text
        except requests.RequestException:
            return -1
        lines = [line for line in text.splitlines() if line.startswith(f"upscaled_{name} ")]
        return float(lines[0].split()[-1]) if lines else -1

    def is_healthy(self, replicas: int = 2) -> bool:
        return all(
            self.is_ready(name) and self.metric(name, "workers_ready") == replicas
            for name in FRONT_ENDS
        )

    def wait_replaced(self, old: Sequence[psutil.Process]) -> None:
        """Wait until none of these replicas runs, and those that replace them accept images."""
        wait_until(lambda: not any(each.is_running() for each in old), "the old replicas end")
        self.wait_whole()

    def wait_whole(self) -> None:
        """Wait until all nodes and both replicas answer, and both front ends say so.

        Front ends count a replica in their figures for 10 s after it has gone.
        """
        wait_until(self._is_whole, "all nodes and replicas answer")
        self.wait_healthy()

    def _is_whole(self) -> bool:
        found = self.findings()  # only one, "cluster", as long as the head does not answer
        nodes, replicas = f"{len(RAY_MACHINES)} of {len(RAY_MACHINES)} answer", "2 of 2 take images"
        return found.get("nodes") == nodes and found.get("replicas", "").startswith(replicas)

    def wait_healthy(self, replicas: int = 2) -> None:
        wait_until(lambda: self.is_healthy(replicas), f"{replicas} replicas at both front ends")

    def is_ready(self, front_end: str, port: int = PORT) -> bool:
        try:
            return requests.get(f"{self.url(front_end, port)}/readyz", timeout=5).status_code == 200
        except requests.RequestException:
            return False

    def _database_answers(self) -> bool:
        import psycopg

        try:
            psycopg.connect(self.database_url, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True
