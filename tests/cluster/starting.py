"""Start the whole cluster: network, machines, state, nodes of Ray, replicas and front ends."""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import requests

from tests.buckets import Bucket
from tests.cluster.bed import CREDITS, FRONT_ENDS, KEY, MACHINES, NODES, Bed
from tests.cluster.machines import machine, network, wait_until
from tests.databases import init_postgresql, require_postgresql, unprivileged_user
from tests.running import UPSCALED


@contextmanager
def running_bed() -> Iterator[Bed]:
    """Run the whole cluster until the block ends; takes a minute and some 5 GiB of memory."""
    require_postgresql()
    with (
        # A short path: it holds sockets, whose names may have 107 bytes.
        tempfile.TemporaryDirectory(prefix="upm", dir="/tmp", ignore_cleanup_errors=True) as home,
        network() as hub,
        ExitStack() as stack,
    ):
        folder = Path(home)
        folder.chmod(0o755)
        machines = {
            name: stack.enter_context(machine(hub, name, number, folder))
            for number, name in enumerate(MACHINES, start=2)
        }
        server = f"http://{machines['store'].address}:5000"
        bed = Bed(folder, machines, Bucket(server, server, "bed"))
        _start_state(bed)
        _start_cluster(bed)
        yield bed


def _start_state(bed: Bed) -> None:
    (bed.folder / "first.key").write_text(KEY)
    postgresql = bed.folder / "pg"
    postgresql.mkdir()
    init_postgresql(postgresql, postgresql / "data", unprivileged_user())
    with (postgresql / "data" / "pg_hba.conf").open("a") as rules:
        rules.write("host all all all trust\n")
    bed.start_database()
    command = [sys.executable, "-m", "moto.server", "-H", "0.0.0.0", "-p", "5000"]
    bed.programs["store"] = bed["store"].start(command, bed.environment, bed.log("store"))
    wait_until(lambda: _answers(bed.bucket.server), "the S3 server answers")
    requests.put(f"{bed.bucket.server}/{bed.bucket.name}", timeout=30).raise_for_status()


def _start_cluster(bed: Bed) -> None:
    bed.start_ray("head")
    bed.wait_ray("head")
    # One after the other: on a busy machine Ray gives a start up after 30 s.
    for name in (*NODES, *FRONT_ENDS):
        bed.start_ray(name)
        bed.wait_ray(name)
    bed.deploy()
    for name in FRONT_ENDS:
        bed.start_front_end(name)
    bed.wait_healthy()
    add = [*UPSCALED, "credits", "add", "first", str(CREDITS)]
    bed["f1"].run(add, bed.environment)


def _answers(url: str) -> bool:
    try:
        requests.get(url, timeout=2)
    except requests.RequestException:
        return False
    return True
