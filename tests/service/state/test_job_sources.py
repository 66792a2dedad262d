"""Sources of jobs: whole, private, and kept exactly as long as a job needs them."""

import os
from contextlib import suppress
from pathlib import Path

import pytest

from tests.buckets import Bucket
from upscaled.errors import InternalError
from upscaled.state import job_sources
from upscaled.state.job_sources import FolderSources, JobSources

MISSING = "0" * 32


@pytest.fixture(params=["folder", "bucket"])
def sources(request: pytest.FixtureRequest, tmp_path: Path) -> JobSources:
    if request.param == "folder":
        return FolderSources(tmp_path / "job-sources")
    pytest.importorskip("obstore", reason="obstore is not installed")
    from upscaled.state.bucket_sources import BucketSources

    bucket: Bucket = request.getfixturevalue("bucket")
    earlier = FolderSources(tmp_path / "job-sources")
    url = f"{bucket.url}/job-sources"
    return BucketSources(url, bucket.endpoint, earlier, max_bytes=2**20)


@pytest.fixture
def forget_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_sources, "UNCLAIMED_S", -1.0)
    with suppress(ImportError):  # obstore is not installed
        monkeypatch.setattr("upscaled.state.bucket_sources.UNCLAIMED_S", -1.0)


async def test_a_source_is_read_as_it_was_stored_until_it_is_deleted(sources: JobSources) -> None:
    data = os.urandom(300_000)
    name = await sources.store(data)
    assert await sources.read(name) == data
    await sources.delete(name)
    await sources.delete(name)
    assert await sources.read(name) is None


async def test_two_sources_never_share_a_name(sources: JobSources) -> None:
    names = [await sources.store(bytes([at])) for at in range(5)]
    assert [await sources.read(name) for name in names] == [bytes([at]) for at in range(5)]


@pytest.mark.usefixtures("forget_at_once")
async def test_a_sweep_removes_what_no_job_needs(sources: JobSources) -> None:
    needed, other = await sources.store(b"needed"), await sources.store(b"other")
    assert sources.sweep({needed}) == 1
    assert await sources.read(needed) == b"needed"
    assert await sources.read(other) is None


async def test_a_source_whose_job_is_about_to_be_written_is_kept(sources: JobSources) -> None:
    name = await sources.store(b"new")
    assert sources.sweep(frozenset()) == 0
    assert await sources.read(name) == b"new"


async def test_sources_from_before_there_was_a_bucket_are_read_and_swept(
    tmp_path: Path, bucket: Bucket
) -> None:
    pytest.importorskip("obstore", reason="obstore is not installed")
    from upscaled.state.bucket_sources import BucketSources

    earlier = FolderSources(tmp_path)
    name = await earlier.store(b"early")
    sources = BucketSources(f"{bucket.url}/s", bucket.endpoint, earlier, max_bytes=2**20)
    assert await sources.read(name) == b"early"
    await sources.delete(name)
    assert await earlier.read(name) is None


@pytest.mark.parametrize("data", [b"whol", b"", b"other"])
async def test_a_damaged_source_in_the_bucket_is_not_there(
    tmp_path: Path, bucket: Bucket, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("obstore", reason="obstore is not installed")
    from upscaled.state.bucket_sources import BucketSources

    sources = BucketSources(
        f"{bucket.url}/s", bucket.endpoint, FolderSources(tmp_path), max_bytes=2**20
    )
    name = await sources.store(b"whole")
    bucket.damage(f"results/s/{name}", data)
    assert await sources.read(name) is None
    assert "is not what was stored" in caplog.text


@pytest.mark.parametrize("data", [b"whol", b"", b"other"])
async def test_a_damaged_source_in_the_folder_is_not_there(
    tmp_path: Path, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    sources = FolderSources(tmp_path)
    name = await sources.store(b"whole")
    if not os.listxattr(tmp_path / name):
        pytest.skip(f"{tmp_path} has no extended attributes")
    (tmp_path / name).write_bytes(data)
    assert await sources.read(name) is None
    assert "is not what was stored" in caplog.text


async def test_a_disk_that_refuses_leaves_no_part_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "job-sources"

    def refuse(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(InternalError, match="No space left on device"):
        await FolderSources(folder).store(b"data")
    assert list(folder.iterdir()) == []


@pytest.mark.usefixtures("forget_at_once")
def test_a_part_whose_writer_died_is_removed(tmp_path: Path) -> None:
    sources = FolderSources(tmp_path)
    (tmp_path / f"{MISSING}.part").write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("not ours")
    assert sources.sweep(frozenset()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


async def test_a_source_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    name = await FolderSources(tmp_path / "sources").store(b"data")
    assert (tmp_path / "sources").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "sources" / name).stat().st_mode & 0o777 == 0o600
