"""Two machines as the page sets them up: nginx, real services, one PostgreSQL and one bucket.

Both services run here, each with a data folder and a port of its own.
"""

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
import sqlalchemy as sa

from tests.buckets import Bucket
from tests.certificates import Certificate, make_certificate
from tests.databases import PostgreSQL
from tests.docs.blocks import DOCS, read_blocks
from tests.docs.conftest import find_program, proxy
from tests.listening import free_port
from tests.running import Server, serve
from tests.service.pool.pools import picture
from upscaled.config import load_settings
from upscaled.state import open_state
from upscaled.state.schema import CREDIT_ENTRIES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

PAGE = DOCS / "machines.md"
KEY = f"upk_{'0123456789abcdef'}_{'A-_z' * 10}xyz"
CREDITS = 100_000
CLIENTS = 3
SETTINGS: dict[str, Any] = {
    "UPSCALED_METERING": "true",
    "UPSCALED_RATE_PER_S": "100000",
    "UPSCALED_RATE_BURST": "100000",
    "UPSCALED_MODEL_X2": "upscaled-x2",
    "UPSCALED_MODEL_X4": "upscaled-x4",
    "UPSCALED_TUNING": "false",
    "UPSCALED_THREADS": "1",
    "UPSCALED_DATABASE_TIMEOUT_S": "2",
    "UPSCALED_TRUSTED_PROXIES": "127.0.0.0/8",
}


@dataclass
class Machines:
    """The services by their ports, and the balancer before them."""

    folder: Path
    public_url: str
    certificate: Certificate
    ports: tuple[int, int]
    start: Callable[[int], Any]
    database_url: str
    services: dict[int, Server]
    opened: dict[int, ExitStack]

    def open(self, port: int) -> None:
        self.opened[port] = ExitStack()
        self.services[port] = self.opened[port].enter_context(self.start(port))

    def mark_down(self, *ports: int) -> None:
        """Set which servers are `down` in nginx's configuration, and reload it."""
        file = self.folder / "nginx.conf"
        text = file.read_text().replace(" down;", ";")
        for port in ports:
            text = text.replace(f"server 127.0.0.1:{port};", f"server 127.0.0.1:{port} down;")
        file.write_text(text)
        own = ["-p", str(self.folder), "-e", str(self.folder / "error.log"), "-c", str(file)]
        subprocess.run([find_program("nginx") or "", *own, "-s", "reload"], check=True)

    def send(self, accept: str = "image/*") -> requests.Response:
        return requests.post(
            f"{self.public_url}/v1/upscale",
            headers={"X-API-KEY": KEY, "Accept": accept},
            files={"image": picture(64)},
            data={"scale": "2"},
            timeout=100,
            verify=str(self.certificate.certificate),
        )

    def count_captures(self) -> int:
        settings = load_settings({}, data_dir=self.folder / "audit", database_url=self.database_url)
        with open_state(settings) as state, state.database.read() as connection:
            captures = CREDIT_ENTRIES.c.kind == "capture"
            count = sa.select(sa.func.count()).select_from(CREDIT_ENTRIES).where(captures)
            assert state.credits.audit() == ()
            return int(connection.execute(count).scalar_one())


def pages_upstream(second_port: int) -> str:
    """The page's own `upstream` with two servers, the first as the page on proxies names it."""
    (block,) = read_blocks(PAGE, "nginx")
    lines = [line for line in block.text.splitlines() if "server 10.0.0." not in line]
    servers = [f"    server 127.0.0.1:{port};" for port in (8000, second_port)]
    return "\n".join([lines[0], *servers, *lines[1:], ""])


@pytest.fixture
def machines(empty_server_url: str, bucket: Bucket, tmp_path: Path) -> Iterator[Machines]:
    if find_program("nginx") is None:
        pytest.skip("nginx is not installed")
    (tmp_path / "first.key").write_text(KEY)
    certificate, public_port = make_certificate(tmp_path), free_port()
    public_url = f"https://localhost:{public_port}"
    shared: dict[str, Any] = {
        f"UPSCALED_{name.upper()}": value for name, value in bucket.settings.items()
    }
    ports = (free_port(), free_port())

    def start(port: int) -> Any:
        return serve(
            tmp_path / str(port),
            arguments=("--port", str(port)),
            timeout_s=100,
            **SETTINGS,
            **shared,
            UPSCALED_DATABASE_URL=empty_server_url,
            UPSCALED_FIRST_KEY_FILE=str(tmp_path / "first.key"),
            UPSCALED_PUBLIC_BASE_URL=public_url,
            UPSCALED_ADVERTISED_URL=f"http://127.0.0.1:{port}",
        )

    made = Machines(tmp_path, public_url, certificate, ports, start, empty_server_url, {}, {})
    with ExitStack() as stack:
        for port in ports:
            made.open(port)
            stack.callback(lambda at: made.opened[at].close(), port)
        made.services[ports[0]].run("credits", "add", "first", str(CREDITS))
        first = f"127.0.0.1:{ports[0]}"
        block = pages_upstream(ports[1])
        stack.enter_context(
            proxy("nginx", tmp_path, public_port, first, certificate, upstream_block=block)
        )
        yield made


@contextmanager
def clients_sending(machines: Machines) -> Iterator[list[requests.Response]]:
    """Let clients send one picture after another until the block ends; yield their answers."""
    answers: list[requests.Response] = []
    failures: list[Exception] = []
    is_over = threading.Event()

    def send() -> None:
        while not is_over.is_set():
            try:
                answers.append(machines.send())
            except requests.RequestException as error:
                failures.append(error)

    threads = [threading.Thread(target=send) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        is_over.set()
        for thread in threads:
            thread.join(120)
    assert failures == []


def wait_for_answers(answers: Sequence[requests.Response], more: int) -> None:
    """Wait until so many more pictures were answered with success."""
    wanted = count_successes(answers) + more
    is_enough = threading.Event()
    while count_successes(answers) < wanted:
        is_enough.wait(0.05)


def count_successes(answers: Sequence[requests.Response]) -> int:
    return sum(answer.status_code == 200 for answer in list(answers))


def test_upgrading_one_machine_after_the_other_loses_no_request(machines: Machines) -> None:
    with clients_sending(machines) as answers:
        wait_for_answers(answers, 2 * CLIENTS)
        for port in machines.ports:
            machines.mark_down(port)
            wait_for_answers(answers, 2 * CLIENTS)
            assert machines.services[port].stop() == 0
            machines.opened[port].close()
            wait_for_answers(answers, CLIENTS)
            machines.open(port)
            machines.mark_down()
            wait_for_answers(answers, 2 * CLIENTS)
    assert {answer.status_code for answer in answers} == {200}
    assert machines.count_captures() == len(answers)


def test_a_machine_that_is_killed_costs_only_what_it_had_under_way(machines: Machines) -> None:
    killed = psutil.Process(machines.services[machines.ports[0]].process.pid)
    with clients_sending(machines) as answers:
        wait_for_answers(answers, 2 * CLIENTS)
        for process in (killed, *killed.children(recursive=True)):
            with suppress(ProcessLookupError):  # decoders come and go
                os.kill(process.pid, signal.SIGKILL)
        wait_for_answers(answers, 4 * CLIENTS)
    lost = [answer for answer in answers if answer.status_code != 200]
    assert len(lost) <= CLIENTS
    assert all(answer.json()["error_code"] == "internal_error" for answer in lost)
    delivered = count_successes(answers)
    assert delivered <= machines.count_captures() <= delivered + len(lost)


def test_every_machine_serves_the_results_of_all(machines: Machines) -> None:
    urls = [machines.send("application/json").json()["result_url"] for _ in range(4)]
    for url in urls:
        path = url.removeprefix(machines.public_url)
        results = [
            requests.get(service.url + path, timeout=30) for service in machines.services.values()
        ]
        assert [result.status_code for result in results] == [200, 200]
        assert results[0].content == results[1].content


def test_a_database_that_hangs_gives_500_until_it_works_again(
    machines: Machines, postgresql: PostgreSQL
) -> None:
    assert machines.send().status_code == 200
    with postgresql.frozen():
        for service in machines.services.values():
            service.wait_said("state_unusable")
            assert not service.is_ready()
        refused = machines.send()
    assert (refused.status_code, refused.json()["error_code"]) == (500, "internal_error")
    for service in machines.services.values():
        service.wait_said("state_usable")
        service.wait_ready()
    assert machines.send().status_code == 200
    assert machines.count_captures() == 2
