"""Locked files: valid while their process runs, then adopted by one other."""

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from upscaled.state.holder import FileHolder, Holders, adopt_orphan, create_locked


def test_a_file_whose_maker_runs_cannot_be_adopted(tmp_path: Path) -> None:
    path = tmp_path / "file"
    descriptor = create_locked(path)
    with adopt_orphan(path) as is_orphan:
        assert not is_orphan
    assert path.exists()
    os.close(descriptor)
    with adopt_orphan(path) as is_orphan:
        assert is_orphan
    assert not path.exists()


def test_an_adopter_that_fails_leaves_the_orphan_to_the_next(tmp_path: Path) -> None:
    path = tmp_path / "file"
    os.close(create_locked(path))
    with pytest.raises(ZeroDivisionError), adopt_orphan(path):
        raise ZeroDivisionError
    with adopt_orphan(path) as is_orphan:
        assert is_orphan


def test_one_of_two_processes_adopts_an_orphan(tmp_path: Path) -> None:
    path = tmp_path / "file"
    os.close(create_locked(path))
    with adopt_orphan(path) as first, adopt_orphan(path) as second:
        assert (first, second) == (True, False)


def test_a_missing_file_is_no_orphan(tmp_path: Path) -> None:
    with adopt_orphan(tmp_path / "file") as is_orphan:
        assert not is_orphan


def test_a_file_that_exists_cannot_be_made_again(tmp_path: Path) -> None:
    descriptor = create_locked(tmp_path / "file")
    with pytest.raises(FileExistsError):
        create_locked(tmp_path / "file")
    os.close(descriptor)


def test_makers_never_lose_their_file_to_adopters(tmp_path: Path) -> None:
    stopped = threading.Event()

    def adopt_until_stopped() -> None:
        while not stopped.is_set():
            for path in list(tmp_path.iterdir()):
                with adopt_orphan(path):
                    pass

    def make_and_check(number: int) -> bool:
        path = tmp_path / str(number)
        descriptor = create_locked(path)
        is_ours = path.exists() and path.stat().st_ino == os.fstat(descriptor).st_ino
        os.close(descriptor)
        return is_ours

    adopters = [threading.Thread(target=adopt_until_stopped) for _ in range(3)]
    for adopter in adopters:
        adopter.start()
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(make_and_check, range(1000)))
    stopped.set()
    for adopter in adopters:
        adopter.join()
    assert all(results)


def test_a_killed_holder_is_dead_although_its_child_is_running(tmp_path: Path) -> None:
    holding = f"""
import subprocess, sys, time
from pathlib import Path
from upscaled.state.holder import FileHolder
print(FileHolder(Path({str(tmp_path)!r})).id)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(child.pid, flush=True)
time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", holding], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout as output:
        holder_id, child = output.readline().strip(), int(output.readline())
        try:
            with FileHolder(tmp_path).survey() as holders:
                assert holders.dead == []
            process.send_signal(signal.SIGKILL)
            process.wait()
            with FileHolder(tmp_path).survey() as holders:
                assert holders.dead == [holder_id]
            assert list(tmp_path.iterdir()) == []
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_holder_that_took_no_lock_leaves_no_file(tmp_path: Path) -> None:
    holder = FileHolder(tmp_path)
    holder.close()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_away_for_a_while_is_never_taken_for_that_of_a_dead_process(
    tmp_path: Path,
) -> None:
    """Its folder was moved, or given to another user; work under its id goes on."""
    holder = FileHolder(tmp_path / "holders")
    before = holder.process_id
    (tmp_path / "holders").rename(tmp_path / "away")
    after = holder.process_id
    (tmp_path / "away" / before).rename(tmp_path / "holders" / before)
    with FileHolder(tmp_path / "holders").survey() as holders:
        assert holders == Holders([], sorted([before, after]), [])
    holder.close()
    with FileHolder(tmp_path / "holders").survey() as holders:
        assert holders.ended == sorted([before, after])
