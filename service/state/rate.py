"""How fast one API key may send requests."""

import math
import threading
import time
from collections.abc import Callable

from service.errors import RateLimitExceeded

_NS_PER_S = 1_000_000_000
_SMALLEST_PRUNE = 1024


class Rate:
    """Lets `burst` requests of a key through at once and `per_s` a second in the long run.

    The generic cell rate algorithm (ITU-T I.371): one number per key, the time at which its
    allowance is whole again. Written out here, for these lines are all of it: the libraries
    at hand count whole milliseconds, keep one object and one timer per key, and cannot say after
    which whole second a refused request will pass.
    """

    def __init__(
        self, per_s: float, burst: int, clock_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        # Whole nanoseconds: sums of many intervals stay exact.
        self._interval_ns = round(_NS_PER_S / per_s)
        self._tolerance_ns = (burst - 1) * self._interval_ns
        self._clock_ns = clock_ns
        self._whole_at_ns: dict[int, int] = {}
        self._prune_at = _SMALLEST_PRUNE
        self._lock = threading.Lock()

    def take(self, key_id: int) -> None:
        """Count one request of this key.

        Raises:
            RateLimitExceeded: not counted; its `retry_after_s` is the least number of whole
                seconds after which a single request would pass.
        """
        with self._lock:
            now_ns = self._clock_ns()
            whole_at_ns = max(now_ns, self._whole_at_ns.get(key_id, now_ns))
            wait_ns = whole_at_ns - self._tolerance_ns - now_ns
            if wait_ns > 0:
                retry_after_s = math.ceil(wait_ns / _NS_PER_S)
                raise RateLimitExceeded(retry_after_s, reason="key_rate", detail=f"key {key_id}")
            self._whole_at_ns[key_id] = whole_at_ns + self._interval_ns
            if len(self._whole_at_ns) >= self._prune_at:
                self._prune(now_ns)

    def _prune(self, now_ns: int) -> None:
        """Forget keys with a whole allowance: for them there is nothing to remember."""
        self._whole_at_ns = {key: at for key, at in self._whole_at_ns.items() if at > now_ns}
        self._prune_at = max(_SMALLEST_PRUNE, 2 * len(self._whole_at_ns))
