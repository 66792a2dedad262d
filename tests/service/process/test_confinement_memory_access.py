"""Processes of one user, without capabilities, that try to read each other's memory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.running import NO_CAPABILITIES
from tests.service.api.waiting import wait_until
from upscaled.decoder.pool import DECODER_COMMAND
from upscaled.fetch.client import COMMAND as FETCHER_COMMAND
from upscaled.pool.local import WORKER_COMMAND
from upscaled.process import confinement
from upscaled.process.child import Child
from upscaled.process.confinement import needs_setuid_programs

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc and prctl")

LOOKING = """
import ctypes, os, sys
from upscaled.process.confinement import OomScore, confine, give_up_other_processes, hide_memory

secret = ctypes.create_string_buffer(b"in memory")

def opened(path, at=0):
    try:
        with open(path, "rb", buffering=0) as file:
            file.seek(at)
            return bool(file.read(1))
    except OSError:
        return False

def linked(path):
    try:
        return bool(os.readlink(path))
    except OSError:
        return False

def sees(pid):
    folder = f"/proc/{pid}"
    environment, mapped = opened(f"{folder}/environ"), opened(f"{folder}/maps")
    memory = opened(f"{folder}/mem", ctypes.addressof(secret))
    seen = {environment, mapped, memory, linked(f"{folder}/fd/0")}
    return seen.pop() if len(seen) == 1 else "in part"

def in_a_child(act):
    pid = os.fork()
    if pid == 0:
        try:
            act()
        finally:
            sys.stdout.flush()
            os._exit(0)
    os.waitpid(pid, 0)

class Waiting:  # a child that does nothing until the end of the block
    def __enter__(self):
        reading, self.writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self.writing)
            os.read(reading, 1)
            os._exit(0)
        return self.pid
    def __exit__(self, *_):
        os.close(self.writing)
        os.waitpid(self.pid, 0)

own = os.getpid()
"""


def run(program: str) -> list[str]:
    """Run what follows `LOOKING` without capabilities, and return the words that it prints."""
    command = [*NO_CAPABILITIES, sys.executable, "-c", LOOKING + program]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.fixture(scope="module")
def landlock() -> None:
    if run("print(give_up_other_processes())") != ["True"]:
        pytest.skip("this kernel has no Landlock of version 2, or a sandbox forbids it")


def test_a_child_reads_its_parent_until_that_closes_its_memory() -> None:
    seen = "in_a_child(lambda: print(sees(own)));"
    assert run(f"{seen} hide_memory(); {seen}") == ["True", "False"]


def test_memory_is_closed_to_others_after_a_fork_and_open_to_its_own_process() -> None:
    program = """
hide_memory()
with Waiting() as pid:
    print(sees(pid), opened("/proc/self/statm"), bool(os.listdir("/proc/self/fd")))
"""
    assert run(program) == ["False", "True", "True"]


@pytest.mark.usefixtures("landlock")
def test_a_child_that_gave_up_other_processes_reads_its_own_children_alone() -> None:
    program = """
def look():
    before = sees(own)
    given_up = give_up_other_processes()
    with Waiting() as pid:
        print(before, given_up, sees(own), sees(pid), sees(os.getpid()))
in_a_child(look)
"""
    assert run(program) == ["True", "True", "False", "True", "True"]


@pytest.mark.usefixtures("landlock")
@pytest.mark.parametrize(("keeps_setuid", "sees"), [(False, "False"), (True, "True")])
def test_a_confined_child_reads_its_parent_only_if_it_keeps_setuid_programs(
    keeps_setuid: bool, sees: str
) -> None:
    program = f"""
lifeline, held = os.pipe()
def look():
    confine(lifeline, OomScore.WORKER, keeps_setuid={keeps_setuid})
    print(sees(own))
in_a_child(look)
"""
    assert run(program) == [sees]


@pytest.mark.usefixtures("landlock")
@pytest.mark.parametrize(
    "command",
    [
        (*DECODER_COMMAND, "--formats", "PNG"),
        FETCHER_COMMAND,
        pytest.param(
            WORKER_COMMAND,
            marks=pytest.mark.skipif(
                needs_setuid_programs(), reason="no worker has used this machine's GPU yet"
            ),
        ),
    ],
    ids=["decoder", "fetcher", "worker"],
)
def test_decoders_fetchers_and_workers_give_up_other_processes(command: tuple[str, ...]) -> None:
    """Before the first message; no setuid program is what the system shows of it."""
    child = Child(command, os.environ)
    try:
        status = Path(f"/proc/{child.pid}/status")
        wait_until(lambda: "NoNewPrivs:\t1\n" in status.read_text())
    finally:
        child.end()


@pytest.mark.usefixtures("landlock")
def test_a_child_that_gave_up_other_processes_can_still_move_files(tmp_path: Path) -> None:
    """The engines' caches move files between folders, which a ruleset forbids by itself."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    program = f"""
give_up_other_processes()
os.chdir({str(tmp_path)!r})
open("a/file", "w").write("written")
os.replace("a/file", "b/file")
os.link("b/file", "a/linked")
print(open("a/linked").read())
"""
    assert run(program) == ["written"]


@pytest.mark.parametrize(
    ("has_driver", "has_device", "expected"),
    [(False, False, False), (True, False, True), (True, True, False)],
)
def test_setuid_programs_are_needed_before_the_first_use_of_an_nvidia_gpu(
    has_driver: bool,
    has_device: bool,
    expected: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, is_there in (("_NVIDIA_DRIVER", has_driver), ("_NVIDIA_MEMORY", has_device)):
        path = tmp_path / name
        if is_there:
            path.touch()
        monkeypatch.setattr(confinement, name, path)
    assert needs_setuid_programs() is expected
