"""Wait for what follows a response a moment later: a log line, a metric, a released credit."""

import time
from collections.abc import Callable


def wait_until(is_true: Callable[[], bool], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_true():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.01)
