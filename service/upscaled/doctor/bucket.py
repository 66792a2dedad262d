"""Check the bucket of results: it stores, returns and deletes them, and never overwrites one."""

import time
from typing import Final

from upscaled.config import Settings
from upscaled.doctor.finding import Finding, failure, ok
from upscaled.errors import InternalError
from upscaled.state import Clocks
from upscaled.state.clocks import StampClock
from upscaled.state.folder_results import FolderResults

CHECK: Final = "results"


def check_results(settings: Settings) -> list[Finding]:
    """Return a finding on the bucket; it gets two small objects, which are deleted again."""
    if not settings.results_url:
        return [ok(CHECK, f"in the data folder: {settings.results_dir}")]
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
                CHECK,
                f"{bucket.location}: {error.detail}",
                "correct UPSCALED_RESULTS_URL, UPSCALED_S3_ENDPOINT, AWS_REGION or the "
                "credentials, which need s3:PutObject, GetObject, DeleteObject and ListBucket",
            )
        ]
    if is_overwriting:
        server = settings.s3_endpoint or "the server"
        return [
            failure(
                CHECK,
                f"{bucket.location}: {server} overwrites an object although the request says "
                "If-None-Match: *",
                "use a server that supports conditional writes, or a newer version of this one",
            )
        ]
    return [ok(CHECK, f"{bucket.location} takes, gives and deletes results ({trial_ms:.0f} ms)")]
