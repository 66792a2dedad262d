"""Wait for what follows a response a moment later: a log line, a metric, a released credit."""

import time
from collections.abc import Callable


def wait_until(is_true: Callable[[], bool], timeout_s: float = 60) -> None:
    """Look again and again, more and more rarely: what is looked at often costs a request."""
    deadline = time.monotonic() + timeout_s
    pause_s = 0.01
    while not is_true():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(pause_s)
        pause_s = min(1.2 * pause_s, 0.05)
