"""Stored results: whole or absent, valid to the moment, and nothing left behind."""

import errno
import os
import re
import signal
import stat
import subprocess
import sys
import threading
import uuid
from pathlib import Path

import pytest

from tests.service.state.conftest import Clock, all_of
from tests.service.state.disks import small_disk
from upscaled.bucket.checksum import DamagedObject
from upscaled.errors import InternalError
from upscaled.state.clocks import StampClock
from upscaled.state.folder_results import CHECKED_FIRST_BYTES, FolderResults
from upscaled.state.holder import create_locked

TTL_S = 3600


@pytest.fixture
def results(tmp_path: Path, clock: Clock) -> FolderResults:
    folder = tmp_path / "results"
    folder.mkdir()
    return FolderResults(folder, TTL_S, StampClock(all_of(clock)))


def files(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "results").rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("media_type", "extension"),
    [("image/jpeg", "jpg"), ("image/png", "png"), ("image/webp", "webp"), ("image/avif", "avif")],
)
async def test_a_result_is_found_as_it_was_stored(
    results: FolderResults, media_type: str, extension: str
) -> None:
    data = os.urandom(100_000)
    name = await results.store(data, media_type)
    assert name.endswith(f".{extension}")
    assert uuid.UUID(name.removesuffix(f".{extension}")).version == 4
    found = await results.find(name)
    assert found is not None
    async with results.open(name) as opened:
        assert opened is not None
        assert opened.stored == found
        assert b"".join([chunk async for chunk in opened.chunks]) == data
    assert (found.media_type, found.size_bytes) == (media_type, 100_000)


async def test_a_result_lies_in_a_folder_of_its_first_digits_for_its_owner_only(
    results: FolderResults, tmp_path: Path
) -> None:
    name = await results.store(b"x", "image/png")
    path = tmp_path / "results" / name[:2] / name
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert files(tmp_path) == [path]


async def test_an_empty_result_is_a_result(results: FolderResults) -> None:
    found = await results.find(await results.store(b"", "image/png"))
    assert found is not None
    assert found.size_bytes == 0


async def test_validity_ends_to_the_moment_without_a_sweep(
    results: FolderResults, clock: Clock
) -> None:
    name = await results.store(b"x", "image/jpeg")
    clock.now_s += TTL_S - 0.001
    assert await results.find(name) is not None
    clock.now_s += 0.001
    assert await results.find(name) is None
    assert results.sweep().removed == 1


async def test_a_deleted_result_is_not_found_and_may_be_deleted_again(
    results: FolderResults, tmp_path: Path
) -> None:
    name = await results.store(b"x", "image/jpeg")
    await results.delete(name)
    await results.delete(name)
    assert await results.find(name) is None
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
async def test_any_other_name_finds_and_deletes_nothing(
    results: FolderResults, tmp_path: Path, name: str
) -> None:
    stored = tmp_path / "results" / "0a" / f"{NAME}.jpg"
    stored.parent.mkdir()
    stored.write_bytes(b"x")
    (tmp_path / "upscaled.sqlite3").write_bytes(b"secret")
    assert await results.find(name) is None
    await results.delete(name)
    assert stored.exists()
    assert (tmp_path / "upscaled.sqlite3").exists()


async def test_an_unknown_uuid_is_not_found(results: FolderResults) -> None:
    assert await results.find(f"{uuid.uuid4()}.jpg") is None


async def test_the_other_extension_is_not_found(results: FolderResults) -> None:
    name = await results.store(b"x", "image/jpeg")
    assert await results.find(name.replace(".jpg", ".png")) is None


async def test_a_link_or_folder_of_a_results_name_is_not_served(
    results: FolderResults, tmp_path: Path, clock: Clock
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
    assert await results.find(f"{NAME}.jpg") is None
    assert await results.find(f"{NAME}.png") is None


async def test_a_sweep_removes_every_expired_result_and_no_other(
    results: FolderResults, clock: Clock, tmp_path: Path
) -> None:
    old = [await results.store(b"old", "image/png") for _ in range(40)]
    clock.now_s += TTL_S / 2
    live = [await results.store(b"live", "image/jpeg") for _ in range(40)]
    assert results.sweep().removed == 0
    clock.now_s += TTL_S / 2
    assert results.sweep().removed == 40
    assert {path.name for path in files(tmp_path)} == set(live)
    assert not any([await results.find(name) for name in old])
    assert all([await results.find(name) for name in live])


def test_a_sweep_removes_no_file_of_another_program(results: FolderResults, tmp_path: Path) -> None:
    folder = tmp_path / "results" / "zz"
    folder.mkdir()
    strangers = [folder / "notes.txt", folder / f"{NAME}.jpeg", tmp_path / "results" / "readme"]
    for path in strangers:
        path.write_bytes(b"")
        os.utime(path, (0, 0))
    assert results.sweep().removed == 0
    assert all(path.exists() for path in strangers)


def test_a_sweep_leaves_a_file_that_is_being_written(
    results: FolderResults, tmp_path: Path
) -> None:
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


async def test_stores_and_sweeps_at_once_lose_nothing(results: FolderResults) -> None:
    stopped = threading.Event()

    def sweep_until_stopped() -> None:
        while not stopped.is_set():
            results.sweep()

    sweepers = [threading.Thread(target=sweep_until_stopped) for _ in range(3)]
    for sweeper in sweepers:
        sweeper.start()
    names = [await results.store(os.urandom(1000), "image/png") for _ in range(50)]
    stopped.set()
    for sweeper in sweepers:
        sweeper.join()
    assert all([await results.find(name) for name in names])


@pytest.mark.slow
async def test_a_writer_killed_at_any_time_leaves_whole_files_or_orphans_for_one_sweep(
    results: FolderResults, tmp_path: Path
) -> None:
    storing = f"""
import asyncio, time
from pathlib import Path
from upscaled.state.folder_results import FolderResults
results = FolderResults(Path({str(tmp_path / "results")!r}), 3600, lambda: {1_800_000_000.0})
print("ready", flush=True)
while True:
    asyncio.run(results.store(b"x" * 3_000_000, "image/png"))
"""
    orphans = 0
    for number in range(3):
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
        assert all([await results.find(path.name) for path in left])
        assert all(path.stat().st_size == 3_000_000 for path in left)
    assert orphans <= 3


async def test_a_full_disk_is_an_internal_error_and_leaves_nothing_behind(
    results: FolderResults, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "results", 1_000_000):
        kept = await results.store(b"x" * 300_000, "image/png")
        with pytest.raises(InternalError) as refused:
            await results.store(b"x" * 2_000_000, "image/png")
        assert refused.value.public_text == "Internal service error"
        assert "No space left" in refused.value.detail
        assert [path.name for path in files(tmp_path)] == [kept]
        assert await results.find(await results.store(b"x" * 300_000, "image/png")) is not None


async def test_a_result_is_on_the_disk_before_it_has_its_name_and_then_the_name_is(
    results: FolderResults, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut leaves either a whole result or none of that name."""
    done: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def note_fsync(descriptor: int) -> None:
        status = os.fstat(descriptor)
        done.append("folder" if stat.S_ISDIR(status.st_mode) else f"{status.st_size} bytes")
        fsync(descriptor)

    def note_rename(path: Path, target: Path) -> Path:
        done.append("rename")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(Path, "rename", note_rename)
    await results.store(b"result", "image/png")
    assert done == ["6 bytes", "rename", "folder"]


def test_a_write_that_breaks_off_leaves_nothing_behind(tmp_path: Path) -> None:
    """The same where no disk can be mounted: the process may write no more than 1 MB a file."""
    storing = f"""
import asyncio, resource
from pathlib import Path
from upscaled.bucket.checksum import DamagedObject
from upscaled.errors import InternalError
from upscaled.state.clocks import Clocks, StampClock
from upscaled.state.folder_results import FolderResults
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
results = FolderResults(Path({str(tmp_path / "results")!r}), 3600, StampClock(Clocks()))
try:
    asyncio.run(results.store(b"x" * 2_000_000, "image/png"))
except InternalError as error:
    print(error.detail)
"""
    done = subprocess.run(
        [sys.executable, "-c", storing], check=True, capture_output=True, text=True
    )
    assert re.search("File too large", done.stdout)
    assert files(tmp_path) == []


@pytest.fixture
def with_attributes(tmp_path: Path) -> None:
    """Skip a test where the file system of temporary files has no extended attributes."""
    path = tmp_path / "file"
    path.touch()
    try:
        os.setxattr(path, "user.test", b"")
    except OSError:
        pytest.skip(f"{tmp_path} has no extended attributes")
    path.unlink()


async def store_and_change(results: FolderResults, data: bytes, changed: bytes) -> str:
    name = await results.store(data, "image/png")
    path = results.folder / name[:2] / name
    status = path.stat()
    path.write_bytes(changed)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    return name


@pytest.mark.usefixtures("with_attributes")
@pytest.mark.parametrize("kept_bytes", [0, 1, 99_999, 100_001])
async def test_a_file_of_another_length_than_was_stored_is_not_found(
    results: FolderResults, kept_bytes: int, caplog: pytest.LogCaptureFixture
) -> None:
    data = os.urandom(100_000)
    name = await store_and_change(results, data, (data + b"x")[:kept_bytes])
    assert await results.find(name) is None
    async with results.open(name) as opened:
        assert opened is None
    assert caplog.text.count("a result in the folder is not what was stored") == 2
    assert name not in caplog.text


@pytest.mark.usefixtures("with_attributes")
async def test_a_file_of_another_checksum_is_not_found_and_then_gone(
    results: FolderResults, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name = await store_and_change(results, b"x" * 100_000, b"x" * 99_999 + b"y")
    async with results.open(name) as opened:
        assert opened is None
    assert "a result in the folder is not what was stored" in caplog.text
    assert files(tmp_path) == []


@pytest.mark.usefixtures("with_attributes")
async def test_a_large_file_of_another_checksum_is_never_read_to_its_end_and_then_gone(
    results: FolderResults, tmp_path: Path
) -> None:
    data = bytes(CHECKED_FIRST_BYTES + 1)
    name = await store_and_change(results, data, data[:-1] + b"y")
    chunks: list[bytes] = []

    async def read_on() -> None:
        async with results.open(name) as opened:
            assert opened is not None
            async for chunk in opened.chunks:
                chunks.append(chunk)

    with pytest.raises(DamagedObject):
        await read_on()
    assert 0 < sum(map(len, chunks)) < len(data)
    assert files(tmp_path) == []


@pytest.mark.usefixtures("with_attributes")
async def test_a_large_file_is_read_as_it_was_stored(results: FolderResults) -> None:
    data = os.urandom(CHECKED_FIRST_BYTES + 1)
    async with results.open(await results.store(data, "image/png")) as opened:
        assert opened is not None
        assert b"".join([chunk async for chunk in opened.chunks]) == data


async def test_a_file_without_a_checksum_is_read_as_it_is(
    results: FolderResults, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one of version 0.2.0, or on a file system that has no attributes."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(os, "setxattr", refuse)
    name = await results.store(b"result", "image/png")
    async with results.open(name) as opened:
        assert opened is not None
        assert b"".join([chunk async for chunk in opened.chunks]) == b"result"
