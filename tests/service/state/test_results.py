"""Stored results: whole or absent, valid to the moment, and nothing left behind."""

import os
import re
import signal
import subprocess
import sys
import threading
import uuid
from pathlib import Path

import pytest

from tests.service.state.conftest import Clock, all_of
from tests.service.state.disks import small_disk
from upscaled.errors import InternalError
from upscaled.state.clocks import StampClock
from upscaled.state.lockfile import create_locked
from upscaled.state.results import Results

TTL_S = 3600


@pytest.fixture
def results(tmp_path: Path, clock: Clock) -> Results:
    folder = tmp_path / "results"
    folder.mkdir()
    return Results(folder, TTL_S, StampClock(all_of(clock)))


def files(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "results").rglob("*") if path.is_file()]


@pytest.mark.parametrize(("media_type", "extension"), [("image/jpeg", "jpg"), ("image/png", "png")])
def test_a_result_is_found_as_it_was_stored(
    results: Results, media_type: str, extension: str
) -> None:
    data = os.urandom(100_000)
    name = results.store(data, media_type)
    assert name.endswith(f".{extension}")
    assert uuid.UUID(name.removesuffix(f".{extension}")).version == 4
    found = results.find(name)
    assert found is not None
    assert found.path.read_bytes() == data
    assert (found.media_type, found.size_bytes) == (media_type, 100_000)
    assert found.expires_in_s == pytest.approx(TTL_S, abs=1e-3)


def test_a_result_lies_in_a_folder_of_its_first_digits_for_its_owner_only(
    results: Results, tmp_path: Path
) -> None:
    name = results.store(b"x", "image/png")
    path = tmp_path / "results" / name[:2] / name
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert files(tmp_path) == [path]


def test_an_empty_result_is_a_result(results: Results) -> None:
    found = results.find(results.store(b"", "image/png"))
    assert found is not None
    assert found.size_bytes == 0


def test_validity_ends_to_the_moment_without_a_sweep(results: Results, clock: Clock) -> None:
    name = results.store(b"x", "image/jpeg")
    clock.now_s += TTL_S - 0.001
    assert results.find(name) is not None
    clock.now_s += 0.001
    assert results.find(name) is None
    assert results.sweep().removed == 1


def test_a_deleted_result_is_gone_and_may_be_deleted_again(
    results: Results, tmp_path: Path
) -> None:
    name = results.store(b"x", "image/jpeg")
    results.delete(name)
    results.delete(name)
    assert results.find(name) is None
    assert files(tmp_path) == []


NAME = "0a1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d"


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        NAME,
        f"{NAME}.jpeg",
        f"{NAME}.JPG",
        f"{NAME.upper()}.jpg",
        f"{NAME}.jpg.part",
        f"{NAME}.jpg\n",
        f"{NAME}.jpg\x00",
        f" {NAME}.jpg",
        f"../{NAME}.jpg",
        f"0a/{NAME}.jpg",
        f"/{NAME}.jpg",
        f"{NAME}.jpg/",
        f"..%2f{NAME}.jpg",
        f"{NAME.replace('-4a', '-1a')}.jpg",  # a uuid1
        f"{NAME.replace('-8c', '-cc')}.jpg",  # not the RFC's variant
        f"{NAME.replace('-', '')}.jpg",
        f"{{{NAME}}}.jpg",
        f"{NAME.replace('0', '０', 1)}.jpg",  # a full-width digit
        "../../upscaled.sqlite3",
        "x" * 100_000,
    ],
)
def test_any_other_name_finds_and_deletes_nothing(
    results: Results, tmp_path: Path, name: str
) -> None:
    stored = tmp_path / "results" / "0a" / f"{NAME}.jpg"
    stored.parent.mkdir()
    stored.write_bytes(b"x")
    (tmp_path / "upscaled.sqlite3").write_bytes(b"secret")
    assert results.find(name) is None
    results.delete(name)
    assert stored.exists()
    assert (tmp_path / "upscaled.sqlite3").exists()


def test_an_unknown_uuid_is_not_found(results: Results) -> None:
    assert results.find(f"{uuid.uuid4()}.jpg") is None


def test_the_other_extension_is_not_found(results: Results) -> None:
    name = results.store(b"x", "image/jpeg")
    assert results.find(name.replace(".jpg", ".png")) is None


def test_a_link_or_folder_of_a_results_name_is_not_served(
    results: Results, tmp_path: Path, clock: Clock
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    os.utime(secret, (clock.now_s, clock.now_s))
    folder = tmp_path / "results" / NAME[:2]
    folder.mkdir()
    (folder / f"{NAME}.jpg").symlink_to(secret)
    (folder / f"{NAME}.png").mkdir()
    os.utime(folder / f"{NAME}.png", (clock.now_s, clock.now_s))
    os.utime(folder / f"{NAME}.jpg", (clock.now_s, clock.now_s), follow_symlinks=False)
    assert results.find(f"{NAME}.jpg") is None
    assert results.find(f"{NAME}.png") is None


def test_a_sweep_takes_every_expired_result_and_no_live_one(
    results: Results, clock: Clock, tmp_path: Path
) -> None:
    old = [results.store(b"old", "image/png") for _ in range(40)]
    clock.now_s += TTL_S / 2
    live = [results.store(b"live", "image/jpeg") for _ in range(40)]
    assert results.sweep().removed == 0
    clock.now_s += TTL_S / 2
    assert results.sweep().removed == 40
    assert {path.name for path in files(tmp_path)} == set(live)
    assert not any(results.find(name) for name in old)
    assert all(results.find(name) for name in live)


def test_a_sweep_takes_no_file_that_is_not_ours(results: Results, tmp_path: Path) -> None:
    folder = tmp_path / "results" / "zz"
    folder.mkdir()
    strangers = [folder / "notes.txt", folder / f"{NAME}.jpeg", tmp_path / "results" / "readme"]
    for path in strangers:
        path.write_bytes(b"")
        os.utime(path, (0, 0))
    assert results.sweep().removed == 0
    assert all(path.exists() for path in strangers)


def test_a_sweep_leaves_a_file_that_is_being_written(results: Results, tmp_path: Path) -> None:
    folder = tmp_path / "results" / "0a"
    folder.mkdir()
    part = folder / f"{NAME}.jpg.part"
    descriptor = create_locked(part)
    try:
        assert results.sweep().removed == 0
        assert part.exists()
    finally:
        os.close(descriptor)
    assert results.sweep().removed == 1
    assert not part.exists()


def test_stores_and_sweeps_at_once_lose_nothing(results: Results) -> None:
    stopped = threading.Event()

    def sweep_until_stopped() -> None:
        while not stopped.is_set():
            results.sweep()

    sweepers = [threading.Thread(target=sweep_until_stopped) for _ in range(3)]
    for sweeper in sweepers:
        sweeper.start()
    names = [results.store(os.urandom(1000), "image/png") for _ in range(100)]
    stopped.set()
    for sweeper in sweepers:
        sweeper.join()
    assert all(results.find(name) for name in names)


def test_a_writer_killed_at_any_time_leaves_whole_files_or_orphans_for_one_sweep(
    results: Results, tmp_path: Path
) -> None:
    storing = f"""
import time
from pathlib import Path
from upscaled.state.results import Results
results = Results(Path({str(tmp_path / "results")!r}), 3600, lambda: {1_800_000_000.0})
print("ready", flush=True)
while True:
    results.store(b"x" * 3_000_000, "image/png")
"""
    orphans = 0
    for number in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", storing], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        with process.stdout as output:
            assert output.readline() == "ready\n"
            threading.Event().wait(0.02 + 0.007 * number)
            process.send_signal(signal.SIGKILL)
            process.wait()
        orphans += sum(path.suffix == ".part" for path in files(tmp_path))
        results.sweep()
        left = files(tmp_path)
        assert all(results.find(path.name) for path in left)
        assert all(path.stat().st_size == 3_000_000 for path in left)
    assert orphans <= 4


def test_a_full_disk_is_an_internal_error_and_leaves_nothing_behind(
    results: Results, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "results", 1_000_000):
        kept = results.store(b"x" * 300_000, "image/png")
        with pytest.raises(InternalError) as refused:
            results.store(b"x" * 2_000_000, "image/png")
        assert refused.value.public_text == "Internal service error"
        assert "No space left" in refused.value.detail
        assert [path.name for path in files(tmp_path)] == [kept]
        assert results.find(results.store(b"x" * 300_000, "image/png")) is not None


def test_a_write_that_breaks_off_leaves_nothing_behind(tmp_path: Path) -> None:
    """The same where no disk can be mounted: the process may write no more than 1 MB a file."""
    storing = f"""
import resource
from pathlib import Path
from upscaled.errors import InternalError
from upscaled.state.results import Results
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
results = Results(Path({str(tmp_path / "results")!r}), 3600, lambda: 0)
try:
    results.store(b"x" * 2_000_000, "image/png")
except InternalError as error:
    print(error.detail)
"""
    done = subprocess.run(
        [sys.executable, "-c", storing], check=True, capture_output=True, text=True
    )
    assert re.search("File too large", done.stdout)
    assert files(tmp_path) == []
