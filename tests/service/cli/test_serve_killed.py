"""Killed at work by SIGKILL, a process leaves nothing: no shared memory, no child, no file."""

import os
import random
import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil
import pytest
import requests

from tests.databases import SQLITE_FILE
from tests.running import Server, serve
from tests.service.cli.test_serve_corpus import serve_bilinear
from tests.service.image.samples import picture, save

CLIENTS = 4
IMAGES = 24
SHARED_DIR = Path("/dev/shm")
MEMORY = "memfd:pixels"
FOREIGN = ("PostgreSQL.", "faketime_", "sem.faketime_", "libpod")
"""How names of shared memory begin that other programs of the tests make."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@cache
def source() -> bytes:
    """Large enough that most of the time some process holds its pixels."""
    return save(picture(600, 800, 4), "PNG")


@dataclass(frozen=True)
class Watched:
    """A server, and the folder its processes put temporary files in."""

    server: Server
    temporary_dir: Path

    def processes(self, module: str) -> list[psutil.Process]:
        children = psutil.Process(self.server.process.pid).children(recursive=True)
        return [child for child in children if module in _command(child)]

    def decoders(self) -> list[psutil.Process]:
        return self.processes("upscaled.decoder.child")

    def workers(self) -> list[psutil.Process]:
        return self.processes("upscaled.worker.main")

    def left_behind(self) -> set[str]:
        """Temporary files, named shared memory, and anonymous memory that a process still holds.

        Other programs of the machine have shared memory too, and may release it meanwhile.
        """
        named = SHARED_DIR.iterdir() if SHARED_DIR.is_dir() else iter(())
        family = []
        with suppress(psutil.NoSuchProcess):
            family = psutil.Process(self.server.process.pid).children(recursive=True)
        return {
            *(str(path) for path in self.temporary_dir.rglob("*")),
            *(str(path) for path in named if not path.name.startswith(FOREIGN)),
            *(
                f"{child.pid} {_command(child)}: {MEMORY}"
                for child in family
                if _holds_memory(child)
            ),
        }

    def send(self) -> str:
        answer = requests.post(
            f"{self.server.url}/v1/upscale",
            headers={"X-API-KEY": self.server.key, "Accept": "image/*"},
            data={"scale": "2"},
            files={"image": ("f", source())},
            timeout=60,
        )
        return "200" if answer.ok else str(answer.json()["error_code"])


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _holds_memory(process: psutil.Process) -> bool:
    with suppress(OSError):
        folder = Path(f"/proc/{process.pid}")
        if MEMORY in (folder / "maps").read_text():
            return True
        return any(MEMORY in os.readlink(fd) for fd in (folder / "fd").iterdir())
    return False


@contextmanager
def watched(folder: Path) -> Iterator[Watched]:
    temporary_dir = folder / "temporary"
    temporary_dir.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(temporary_dir))
        with serve_bilinear(folder) as server:
            yield Watched(server, temporary_dir)


def until(condition: Callable[[], bool], timeout_s: float = 15) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def send_while_killing(
    service: Watched, find: Callable[[], list[psutil.Process]], kills: int, *, apart: int
) -> Counter[str]:
    """Return the answers of images while so many processes of a kind were killed.

    apart: how many answers come between two kills.
    """
    answers: list[str] = []
    is_over = threading.Event()

    def kill_some() -> None:
        chance = random.Random(1)
        left, wanted = kills, 0
        while left and not is_over.wait(0.5):
            if len(answers) >= wanted and service.server.is_ready() and (found := find()):
                with suppress(psutil.NoSuchProcess):
                    chance.choice(found).send_signal(signal.SIGKILL)
                    left, wanted = left - 1, len(answers) + apart
        is_over.set()

    def send_on(_: int) -> None:
        while not is_over.is_set() or len(answers) < IMAGES:
            answers.append(service.send())

    killer = threading.Thread(target=kill_some)
    killer.start()
    try:
        with ThreadPoolExecutor(CLIENTS) as clients:
            list(clients.map(send_on, range(CLIENTS)))
    finally:
        is_over.set()
        killer.join()
    return Counter(answers)


def test_of_decoders_and_workers_killed_at_work_nothing_is_left(tmp_path: Path) -> None:
    with watched(tmp_path) as service:
        assert service.send() == "200"
        before = service.left_behind()
        answers = send_while_killing(service, service.decoders, 6, apart=0)
        # Two in a row may have hit one file; never does a decoder's death cost anything else.
        assert set(answers) <= {"200", "internal_error"}
        assert answers["internal_error"] <= 6 / 2
        assert until(lambda: service.left_behind() <= before), service.left_behind()

        orphans = service.decoders()
        # Twice by itself would be the image's own fault: the first is answered before the second.
        answers = send_while_killing(service, service.workers, 2, apart=2 * CLIENTS)
        assert set(answers) == {"200"}
        _, alive = psutil.wait_procs(orphans, timeout=60)
        assert alive == []
        assert until(lambda: service.left_behind() <= before), service.left_behind()


def test_of_a_front_end_killed_at_work_nothing_is_left(tmp_path: Path) -> None:
    with watched(tmp_path) as service, ThreadPoolExecutor(CLIENTS) as clients:
        assert service.send() == "200"
        before = service.left_behind()
        family = psutil.Process(service.server.process.pid).children(recursive=True)
        sending = [clients.submit(service.send) for _ in range(IMAGES)]
        assert until(lambda: sum(each.done() for each in sending) > CLIENTS)
        service.server.process.kill()
        service.server.process.wait()
        _, alive = psutil.wait_procs(family, timeout=60)
        assert alive == []
        broken = sum(isinstance(each.exception(), requests.RequestException) for each in sending)
        assert broken > 0
        assert until(lambda: service.left_behind() <= before), service.left_behind()


def test_a_request_under_way_at_a_kill_is_begun_again_at_once_by_the_next_start(
    tmp_path: Path,
) -> None:
    def send(server: Server) -> requests.Response:
        return requests.post(
            f"{server.url}/v1/upscale",
            headers={"X-API-KEY": key, "Idempotency-Key": "order-17"},
            data={"scale": "2"},
            files={"image": ("a.png", source())},
            timeout=300,
        )

    def is_under_way() -> bool:
        with sqlite3.connect(tmp_path / SQLITE_FILE) as database:
            (leases,) = database.execute("SELECT count(lease_until_s) FROM idempotency_keys")
        return bool(leases[0])

    with serve(tmp_path) as server, ThreadPoolExecutor(1) as client:
        key = server.key
        sending = client.submit(send, server)
        assert until(is_under_way)
        front_end = server.front_end()
        server.process.kill()
        assert isinstance(sending.exception(60), requests.ConnectionError)
        psutil.wait_procs([front_end], timeout=60)
    with serve(tmp_path) as server:
        assert send(server).status_code == 200
