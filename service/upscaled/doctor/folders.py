"""Check where results go: the data folder, its disk's space, and the bucket."""

import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Final

from upscaled.config import Settings
from upscaled.doctor.finding import Finding, failure, ok, warning
from upscaled.errors import InternalError
from upscaled.state import Clocks
from upscaled.state.clocks import StampClock
from upscaled.state.folder_results import FolderResults
from upscaled.state.store import MIN_FREE_BYTES

COMFORTABLE_BYTES: Final = 2**30
"""A dozen of the largest results; one is up to 89 MB."""

_SAMPLE_BYTES: Final = 256 * 1024
_MIN_FREE_FILES: Final = 1000
_MIB: Final = 2**20
RESULTS: Final = "results"


def check_folders(settings: Settings) -> list[Finding]:
    """Check writing and free space; nothing is left behind, and no folder made."""
    folder = settings.data_dir
    inner = (settings.results_dir, settings.models_dir, folder / "holders", folder / "tuning")
    existing = _nearest_existing(folder)
    faults = [_try_to_write(each) for each in (existing, *inner) if os.path.lexists(each)]
    writing = next((each for each in faults if each is not None), None)
    if writing is None:
        is_new = existing != folder
        found = f"{folder} will be made at the first start" if is_new else f"{folder} is writable"
        writing = ok("data folder", found)
    return [writing, _describe_space(existing)]


def _nearest_existing(folder: Path) -> Path:
    """Return the folder itself, or the parent that it would be made in."""
    for each in (folder, *folder.absolute().parents):
        if os.path.lexists(each):
            return each
    return Path("/")


def _try_to_write(folder: Path) -> Finding | None:
    reason = find_write_fault(folder)
    if not reason:
        return None
    return failure(
        "data folder",
        f"{folder}: cannot be written by user {os.geteuid()}: {reason}",
        "give the folder to the user that runs the service, free its disk, or name another "
        "one by UPSCALED_DATA_DIR",
    )


def find_write_fault(folder: Path) -> str:
    """Write a nameless file, and return why that fails; empty where it is on the disk.

    Permission bits alone do not say what a disk allows: one may be full, or have failed before.
    """
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0" * _SAMPLE_BYTES)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return "is a file, not a folder" if folder.is_file() else str(error.strerror)
    return ""


def _describe_space(folder: Path) -> Finding:
    try:
        usage, status = shutil.disk_usage(folder), os.statvfs(folder)
    except OSError as error:
        return failure("disk", f"{folder}: {error.strerror}", "name another UPSCALED_DATA_DIR")
    found = f"{usage.free // _MIB:,} MiB free of {usage.total // _MIB:,} at {folder}"
    advice = "free some of it, lower UPSCALED_RESULT_TTL_S, or name another UPSCALED_DATA_DIR"
    if usage.free < MIN_FREE_BYTES:
        least = f"below {MIN_FREE_BYTES // _MIB} MiB the service is not ready"
        return failure("disk", f"{found}: {least}", advice)
    if status.f_files and status.f_favail < _MIN_FREE_FILES:
        return failure("disk", f"{found}, but it takes only {status.f_favail} more files", advice)
    if usage.free < COMFORTABLE_BYTES:
        return warning("disk", f"{found}: a dozen large results fill it", advice)
    return ok("disk", found)


def check_results(settings: Settings) -> list[Finding]:
    """Return a finding on the bucket; it gets two small objects, which are deleted again."""
    if not settings.results_url:
        return [ok(RESULTS, f"in the data folder: {settings.results_dir}")]
    from upscaled.state.bucket_results import BucketResults

    clock = StampClock(Clocks())
    earlier = FolderResults(settings.results_dir, settings.result_ttl_s, clock)
    bucket = BucketResults(settings.results_url, settings.s3_endpoint, earlier)
    started_s = time.monotonic()
    try:
        bucket.try_out()
        trial_ms = (time.monotonic() - started_s) * 1000
        is_overwriting = bucket.overwrites()
    except InternalError as error:
        return [
            failure(
                RESULTS,
                f"{bucket.location}: {error.detail}",
                "correct UPSCALED_RESULTS_URL, UPSCALED_S3_ENDPOINT, AWS_REGION or the "
                "credentials, which need s3:PutObject, GetObject, DeleteObject and ListBucket",
            )
        ]
    if is_overwriting:
        server = settings.s3_endpoint or "the server"
        return [
            failure(
                RESULTS,
                f"{bucket.location}: {server} overwrites an object although the request says "
                "If-None-Match: *",
                "use a server that supports conditional writes, or a newer version of this one",
            )
        ]
    return [ok(RESULTS, f"{bucket.location} stores, reads, deletes results ({trial_ms:.0f} ms)")]
