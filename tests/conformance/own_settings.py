"""The settings that the kit starts this checkout's own server with."""

from typing import Any

LOOPBACK = "127.0.0.1"
ONLY_ALLOWED = "127.0.0.2"  # the one private address that `strict` may fetch from
PUBLIC_BASE_URL = "https://upscale.example.test"
RESULT_TTL_S = 4
SOURCE_TIMEOUT_S = 6

# One thread: the pictures are small, and a busy machine then slows the kit down least.
THREADS = {"UPSCALED_THREADS": "1"}
OPEN: dict[str, Any] = {
    **THREADS,
    "UPSCALED_SOURCE_PRIVATE_CIDRS": "127.0.0.0/8,::1/128",
    "UPSCALED_RATE_PER_S": "10000",
    "UPSCALED_RATE_BURST": "10000",
    "UPSCALED_SOURCE_TIMEOUT_S": str(SOURCE_TIMEOUT_S),
}
STRICT: dict[str, Any] = {
    **THREADS,
    "UPSCALED_SOURCE_PRIVATE_CIDRS": f"{ONLY_ALLOWED}/32",
    "UPSCALED_MAX_QUEUE": "1",
    "UPSCALED_JOBS_PER_WORKER": "1",
    "UPSCALED_METERING": "true",
    "UPSCALED_PUBLIC_BASE_URL": PUBLIC_BASE_URL,
    "UPSCALED_RESULT_TTL_S": str(RESULT_TTL_S),
    "UPSCALED_SOURCE_TIMEOUT_S": str(SOURCE_TIMEOUT_S),
}
