"""Estimate the seconds of a worker that a picture takes: the unit of the queue, shares and waits.

Which model a picture goes to is worked out as the worker does, from its header and the worker's
ladders (`upscale.model_choice`), so that an estimate is right before the first picture of a
kind is finished: models differ by a factor of a hundred for one pixel.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Final, NamedTuple

from upscaled.pool.executor import UpscaleRequest
from upscaled.pool.messages import Ready
from upscaled.upscale.model_choice import Rung, choose_rung
from upscaled_models.registry import ModelSpec

MAX_RETRY_AFTER_S: Final = 3600
"""Limits the promised wait: an hour is long enough for any client to come back."""

SMALL_RESULT_PX: Final = 2048 * 2048
"""Limits a small result: it has 12 MB of canvas, and the fastest model takes a moment for it."""

SMALL_WORK_S: Final = 0.25
"""Work that is small by any model: on a GPU a large model takes less for `SMALL_RESULT_PX`."""

_UNKNOWN_S_PER_PX: Final = 4e-6
"""The estimate before anything was measured: about what the smallest models take on two cores."""

_LEAST_WORK_S: Final = 1e-6
"""Limits the work from below: what costs nothing would never let another key pass."""

_NEWEST_WEIGHT: Final = 0.3
"""The weight of the newest picture in a moving average."""

_KEYS_REMEMBERED: Final = 1000
"""Limits the API keys whose share of harmed pictures is remembered."""

_BITS_OF_A_BYTE: Final = 8
_SCALES: Final = (2, 4)


class Estimate(NamedTuple):
    """The cost of one picture.

    work_s: seconds of one worker, above 0. is_small: it is in flight for moments only, and its
    canvas is not counted.
    """

    work_s: float
    is_small: bool


class _Kind(NamedTuple):
    """Pictures that take alike for a pixel. Those of 16 bits go through a model in float32."""

    model: str
    scale: int
    is_deep: bool


class _Measured(NamedTuple):
    """Seconds and pixels of pictures that are finished, older ones counted ever less."""

    worked_s: float = 0.0
    px: float = 0.0

    @property
    def s_per_px(self) -> float:
        return self.worked_s / self.px

    def then(self, worked_s: float, px: int) -> "_Measured":
        """Return the sums with one more picture, older ones counting less."""
        old = 1 - _NEWEST_WEIGHT
        return _Measured(old * self.worked_s + worked_s, old * self.px + px)


class _HarmedShares:
    """Moving averages of how many of an API key's pictures were harmed, from 0 to 1.

    A key without pictures so far, or none among those of the last keys, has the share of all.
    """

    def __init__(self) -> None:
        self._of_all = 1.0
        self._by_key: OrderedDict[int, float] = OrderedDict()

    def of(self, key_id: int) -> float:
        return self._by_key.get(key_id, self._of_all)

    def note(self, key_id: int, is_harmed: bool) -> None:
        self._by_key[key_id] = _average(self.of(key_id), float(is_harmed))
        self._by_key.move_to_end(key_id)
        self._of_all = _average(self._of_all, float(is_harmed))
        if len(self._by_key) > _KEYS_REMEMBERED:
            self._by_key.popitem(last=False)


class CostModel:
    """Estimates a worker's seconds for a pixel by each model, scale and depth.

    The seconds are a moving average over finished pictures, weighted by their pixels: what a small
    picture takes beside its pixels says little of a large one. Before the first of a kind they are
    what the same model took at the other scale, what the worker measured at its start, or what
    another model takes, in proportion to their arithmetic.
    """

    def __init__(self, find_spec: Callable[[str], ModelSpec | None]) -> None:
        """
        Args:
            find_spec: returns the spec of a model by its name; None for one that is unknown.
        """
        self._find_spec = find_spec
        self._specs: dict[str, ModelSpec] = {}
        self._ladders: Mapping[int, list[Rung]] = {}
        self._measured: dict[_Kind, _Measured] = {}
        self._at_start: dict[str, float] = {}
        self._harmed = _HarmedShares()

    def assume(self, ready: Ready) -> None:
        """Adopt a worker's ladders, and the seconds that it measured at its start."""
        self._ladders = ready.ladders
        self._at_start.update(ready.seconds_per_px)

    def learn(self, request: UpscaleRequest, model: str, worked_s: float) -> None:
        """Update the average with what one finished picture had of its worker.

        Args:
            model: the one that made it.
            worked_s: for decoding and encoding, and its share of the device.
        """
        kind = _Kind(model, request.scale, request.is_deep)
        before = self._measured.get(kind, _Measured())
        self._measured[kind] = before.then(worked_s, _px(request))
        if_harmed, if_clean = self._choices(request)
        if if_harmed != if_clean and model in (if_harmed, if_clean):
            self._harmed.note(request.key_id, model == if_harmed)

    def estimate(self, request: UpscaleRequest) -> Estimate:
        """Estimate what a picture will take, by its header.

        Whether a picture is harmed is seen only in its pixels. Where its model depends on that, the
        estimate is the mean over the pictures of its API key so far; before the first of any key it
        is a harmed one's.
        """
        if_harmed, if_clean = self._choices(request)
        work_s = self._expected_s(request, if_harmed)
        if if_clean != if_harmed:
            clean_s = self._expected_s(request, if_clean)
            share = self._harmed.of(request.key_id)
            work_s = share * work_s + (1 - share) * clean_s
        is_quick = work_s <= max(SMALL_WORK_S, self._quick_s(request))
        is_small = is_quick and request.result_px <= SMALL_RESULT_PX
        return Estimate(max(work_s, _LEAST_WORK_S), is_small)

    def expected_s(self, request: UpscaleRequest) -> float:
        """Return the seconds of one worker that a picture will take."""
        return self.estimate(request).work_s

    def seconds_per_px(self) -> dict[tuple[str, int], float]:
        """Return the measured seconds for an input pixel of 8 bits, by model and scale."""
        at_start = {
            (model, scale): seconds * self._passes_px(model, scale)
            for model, seconds in self._at_start.items()
            for scale in _SCALES
        }
        measured = (each for each in self._measured.items() if not each[0].is_deep)
        return at_start | {(kind.model, kind.scale): sums.s_per_px for kind, sums in measured}

    def _choices(self, request: UpscaleRequest) -> tuple[str, str]:
        """The models that a picture would go to if it is harmed, and if it is not."""
        ladder = self._ladders.get(request.scale)
        if request.model or not ladder:
            return request.model, request.model
        choose = partial(choose_rung, ladder, _px(request), is_deep=request.is_deep)
        return choose(is_harmed=True).model, choose(is_harmed=False).model

    def _quick_s(self, request: UpscaleRequest) -> float:
        """What the fastest model of a scale takes for the largest of small results."""
        px = SMALL_RESULT_PX / (request.result_px / _px(request)) if request.result_px else 0
        models = [rung.model for rung in self._ladders.get(request.scale, ())]
        return px * min(
            (self._s_per_px(_kind(request, model)) for model in models), default=math.inf
        )

    def _expected_s(self, request: UpscaleRequest, model: str) -> float:
        return _px(request) * self._s_per_px(_kind(request, model))

    def _s_per_px(self, kind: _Kind) -> float:
        return next(self._guesses(kind), _UNKNOWN_S_PER_PX)

    def _guesses(self, kind: _Kind) -> Iterator[float]:
        """Seconds for an input pixel, the best founded first."""
        yield from self._measured_like(kind)
        if kind.model in self._at_start:
            yield self._at_start[kind.model] * self._passes_px(kind.model, kind.scale)
        yield from self._proportional(kind)
        yield from self._measured_like(kind._replace(is_deep=not kind.is_deep))

    def _measured_like(self, kind: _Kind) -> Iterator[float]:
        """What was measured of the kind, or of the model at another scale."""
        if kind in self._measured:
            yield self._measured[kind].s_per_px
        if kind.is_deep:
            yield from self._measured_like(kind._replace(is_deep=False))
        passes_px = self._passes_px(kind.model, kind.scale)
        for scale in _SCALES:
            other = kind._replace(scale=scale)
            if other != kind and other in self._measured:
                ratio = passes_px / self._passes_px(kind.model, scale)
                yield self._measured[other].s_per_px * ratio

    def _proportional(self, kind: _Kind) -> Iterator[float]:
        """From the known model whose arithmetic is nearest, in proportion."""
        spec = self._spec(kind.model)
        if spec is None:
            return
        known = {
            other: s for (other, scale), s in self.seconds_per_px().items() if scale == kind.scale
        }
        work = _multiplications_per_px(spec) * self._passes_px(kind.model, kind.scale)
        by_distance = []
        for other, s_per_px in known.items():
            if (other_spec := self._spec(other)) is not None:
                ratio = work / (
                    _multiplications_per_px(other_spec) * self._passes_px(other, kind.scale)
                )
                by_distance.append((abs(math.log(ratio)), s_per_px * ratio))
        if by_distance:
            yield min(by_distance)[1]

    def _passes_px(self, model: str, scale: int) -> int:
        """Pixels that go into the network for one of the picture: more than 1 in two passes."""
        spec = self._spec(model)
        px, gain = 1, spec.native_scale if spec else scale
        while spec is not None and spec.native_scale > 1 and gain < scale:
            px += gain**2
            gain *= spec.native_scale
        return px

    def _spec(self, model: str) -> ModelSpec | None:
        """A model's spec; each is looked up once, for it does not change under its name."""
        if model not in self._specs and (spec := self._find_spec(model)) is not None:
            self._specs[model] = spec
        return self._specs.get(model)


def work_before_s(
    key_id: int, own_s: float, in_flight_s: Iterable[float], waiting_s: Mapping[int, float]
) -> float:
    """Return the worker seconds that are done before all that waits of one key is served.

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
    """Return the whole seconds until the work is done, from 1 to `MAX_RETRY_AFTER_S`.

    Args:
        work_s: worker seconds of the work.
        workers: how many work at it at once.
        starting_s: seconds until the first of them is ready.
    """
    wait_s = math.ceil(starting_s + work_s / max(1, workers))
    return min(MAX_RETRY_AFTER_S, max(1, wait_s))


def _kind(request: UpscaleRequest, model: str) -> _Kind:
    return _Kind(model, request.scale, request.is_deep)


def _average(before: float, newest: float) -> float:
    """The next value of a moving average."""
    return before + _NEWEST_WEIGHT * (newest - before)


def _multiplications_per_px(spec: ModelSpec) -> float:
    """A network's multiplications for one pixel of its input, nearly.

    Each weight of a convolution is used once at each pixel of the trunk; the few behind it that see
    more pixels add 8 % to RRDB's.
    """
    side_px = 1024
    weights = spec.size_bytes * _BITS_OF_A_BYTE / spec.bits
    return weights * spec.trunk_pixels(side_px, side_px) / side_px**2


def _px(request: UpscaleRequest) -> int:
    return max(1, request.width_px * request.height_px)
