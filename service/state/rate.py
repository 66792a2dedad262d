"""How fast one API key may send requests."""

import math
import threading
import time
from collections.abc import Callable

from service.errors import RateLimitExceeded

_SMALLEST_PRUNE = 1024


class Rate:
    """Lets `burst` requests of a key through at once and `per_s` a second in the long run.

    The generic cell rate algorithm (ITU-T I.371): one number per key, the time at which its
    allowance is whole again. Written out here, for these ten lines are all of it: the libraries
    at hand count whole milliseconds, keep one object and one timer per key, and cannot say after
    which whole second a refused request will pass.
    """

    def __init__(
        self, per_s: float, burst: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._interval_s = 1 / per_s
        self._tolerance_s = (burst - 1) / per_s
        self._clock = clock
        self._whole_at_s: dict[int, float] = {}
        self._prune_at = _SMALLEST_PRUNE
        self._lock = threading.Lock()

    def take(self, key_id: int) -> None:
        """Count one request of this key.

        Raises:
            RateLimitExceeded: not counted; its `retry_after_s` is the least number of whole
                seconds after which a single request would pass.
        """
        with self._lock:
            now_s = self._clock()
            whole_at_s = max(now_s, self._whole_at_s.get(key_id, now_s))
            wait_s = whole_at_s - self._tolerance_s - now_s
            if wait_s > 1e-9:  # less is rounding
                raise RateLimitExceeded(math.ceil(wait_s - 1e-9), detail=f"key {key_id}")
            self._whole_at_s[key_id] = whole_at_s + self._interval_s
            if len(self._whole_at_s) >= self._prune_at:
                self._prune(now_s)

    def _prune(self, now_s: float) -> None:
        """Forget keys with a whole allowance: for them there is nothing to remember."""
        self._whole_at_s = {key: at for key, at in self._whole_at_s.items() if at > now_s}
        self._prune_at = max(_SMALLEST_PRUNE, 2 * len(self._whole_at_s))
