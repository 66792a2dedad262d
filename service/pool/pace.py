"""How fast the workers are, learned from what they finish: the ground of every `Retry-After`."""

import math
from collections.abc import Iterable, Mapping

from service.pool.boundary import UpscaleRequest

MAX_RETRY_AFTER_S = 3600
_UNKNOWN_S_PER_PX = 4e-6
_NEWEST_WEIGHT = 0.3

_Kind = tuple[int, bool]


class Pace:
    """Worker seconds per input pixel, one figure for each scale and depth.

    Each scale has one model, so its trunk pixels are a fixed share of its input pixels and the
    share cancels out; between scales the models differ, and so do the figures. Images of 16 bits go
    through it in float32.
    """

    def __init__(self) -> None:
        self._s_per_px: dict[_Kind, float] = {}

    def assume(self, s_per_px: Mapping[int, float]) -> None:
        """Take a warm-up's figures where no finished image has given better ones."""
        warm = {(scale, deep): pace for scale, pace in s_per_px.items() for deep in (False, True)}
        self._s_per_px = {**warm, **self._s_per_px}

    def learn(self, request: UpscaleRequest, worked_s: float) -> None:
        """Take in what one finished image had of its worker; the newest weighs 30 %."""
        newest = worked_s / _px(request)
        known = self._s_per_px.get(_kind(request), newest)
        self._s_per_px[_kind(request)] = known + _NEWEST_WEIGHT * (newest - known)

    def expected_s(self, request: UpscaleRequest) -> float:
        """Seconds of one worker that this image will take."""
        return _px(request) * self._s_per_px.get(_kind(request), _UNKNOWN_S_PER_PX)


def work_before_s(
    key_id: int, own_s: float, in_flight_s: Iterable[float], waiting_s: Mapping[int, float]
) -> float:
    """Worker seconds that are done before all that waits of one key is served.

    Work in flight is finished first, of whichever key. Of what waits, each other key gets as much
    as this one, or what it has if that is less: a key that floods the queue does not lengthen it.

    Args:
        own_s: the request that was refused.
        in_flight_s: what is left of each image at a worker.
        waiting_s: what waits of each key.
    """
    mine_s = waiting_s.get(key_id, 0.0)
    others_s = sum(
        min(left_s, mine_s + own_s) for other, left_s in waiting_s.items() if other != key_id
    )
    return sum(in_flight_s) + mine_s + others_s


def retry_after_s(work_s: float, workers: int, starting_s: float = 0.0) -> int:
    """Whole seconds until `workers` have done the work, from 1 to `MAX_RETRY_AFTER_S`.

    starting_s: until the first of them is ready.
    """
    wait_s = math.ceil(starting_s + work_s / max(1, workers))
    return min(MAX_RETRY_AFTER_S, max(1, wait_s))


def _kind(request: UpscaleRequest) -> _Kind:
    return request.scale, request.is_deep


def _px(request: UpscaleRequest) -> int:
    return max(1, request.width_px * request.height_px)
