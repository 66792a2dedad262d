"""Estimate the seconds of a worker that an image takes: the unit of the queue, shares and waits.

Which model an image goes to is worked out as the worker does, from its header and the worker's
ladders (`upscaled.upscale.model_choice`), so that an estimate is right before the first image of a
kind is finished: models differ by a factor of a hundred for one pixel.
"""

import math
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import replace
from typing import Final, NamedTuple

from upscaled.config import SCALES
from upscaled.image.formats.table import FORMATS
from upscaled.pool.averages import Measured, Openings, Shares
from upscaled.pool.executor import Expectation, UpscaleRequest
from upscaled.pool.messages import WorkerReady
from upscaled.upscale.model_choice import Rung, choose_rung
from upscaled_models.errors import ModelError
from upscaled_models.registry import ModelSpec
from upscaled_models.store import ModelStore

MAX_RETRY_AFTER_S: Final = 3600
"""Limits the promised wait: an hour is long enough for any client to come back."""

SMALL_RESULT_PX: Final = 2048 * 2048
"""Limits a small result: it has 12 MB of canvas, and the fastest model computes it in a moment."""

SMALL_WORK_S: Final = 0.25
"""Work that is small by any model: on a GPU a large model takes less for `SMALL_RESULT_PX`."""

_UNKNOWN_S_PER_PX: Final = 4e-6
"""The estimate before anything was measured: about what the smallest models take on two cores."""

_LEAST_WORK_S: Final = 1e-6
"""Limits the work from below: what costs nothing would never let another key pass."""

_NEARLY_FLAT_BITS_PER_PX: Final = 0.2
"""Below it lie files of one colour (PNG 0.04, JPEG 0.13), simple drawings on it, and even
gradients; photographs take 0.25 as WebP of quality 75, and 0.28 as JPEG of quality 30."""

_NEARLY_FLAT_SHARE: Final = 0.1
"""The guess for the work of such an image, before one of its kind is finished."""

_BITS_OF_A_BYTE: Final = 8


class CostEstimate(NamedTuple):
    """Cost of one image.

    work_s: seconds of one worker, above 0. is_small: it is in flight for moments only, and its
    canvas is not counted.
    """

    work_s: float
    is_small: bool


class _Kind(NamedTuple):
    """A kind of images with one cost per pixel. Those of 16 bits go through a model in float32."""

    model: str
    scale: int
    is_deep: bool


class CostModel:
    """Estimates of a worker's seconds for a pixel, by model, scale and depth.

    The seconds are a moving average over finished images, weighted by their pixels: what a small
    image takes beside its pixels says little of a large one. Before the first of a kind they are
    what the same model took at the other scale, what the worker measured at its start, or what
    another model takes, in proportion to their arithmetic. Formats whose encoders begin when all
    pixels are there have an average of their own, for a pixel of the result.

    ladders: by scale, what `auto` chooses from, best first: what all machines share, or what the
    newest worker reported.
    """

    def __init__(self, store: ModelStore) -> None:
        self.ladders: dict[int, tuple[Rung, ...]] = {}
        self._is_shared = False
        self._store = store
        self._specs: dict[str, ModelSpec] = {}
        self._measured: dict[_Kind, Measured] = {}
        self._at_start: dict[str, float] = {}
        self._encoded: dict[str, Measured] = {}
        self._harmed = Shares()
        self._computed = Shares()
        self._openings = Openings()

    def assume(self, ready: WorkerReady) -> None:
        """Adopt a worker's ladders, and the seconds that it measured at its start."""
        if not self._is_shared:
            self.ladders = ready.choice.ladders
        self._at_start.update(ready.seconds_per_px)

    def adopt(self, ladders: Mapping[int, tuple[Rung, ...]]) -> None:
        """Adopt the ladders that all machines share, instead of those of this machine's workers."""
        self.ladders = dict(ladders)
        self._is_shared = True

    def bind(self, request: UpscaleRequest) -> UpscaleRequest:
        """Return the request with the ladder that all machines share, if there is one."""
        if not self._is_shared or request.ladder:
            return request
        return replace(request, ladder=self.ladders.get(request.scale, ()))

    def learn(
        self,
        request: UpscaleRequest,
        model: str,
        full_s: float | None,
        worked_s: float | None = None,
        *,
        encode_s: float = 0.0,
        opening_s: float = 0.0,
    ) -> None:
        """Update the averages with what one finished image had of its worker.

        Args:
            model: the one that made it.
            full_s: for decoding and encoding, and its share of the device, had it no flat and no
                transparent areas; None where it has no other ones.
            worked_s: what it was with them; None: it has none.
            encode_s: what encoding took of both, once the last pixel was there.
            opening_s: what it waited for the model.
        """
        self._openings.note(model, opening_s)
        form = request.output.format
        if FORMATS[form].encode_s_per_px:  # it depends on the result alone, and not on the model
            encoded = self._encoded.get(form, Measured())
            self._encoded[form] = encoded.then(encode_s, request.encoded_px)
            full_s = None if full_s is None else max(0.0, full_s - encode_s)
            worked_s = None if worked_s is None else max(0.0, worked_s - encode_s)
        kind = _Kind(model, request.scale, request.is_deep)
        if full_s is not None:
            before = self._measured.get(kind, Measured())
            self._measured[kind] = before.then(full_s, request.source_px)
        full_s = full_s or request.source_px * self._s_per_px(request, model)
        if worked_s is not None and full_s:
            names, first = _describe_content(request)
            self._computed.note(min(1.0, worked_s / full_s), *names, first=first)
        if_harmed, if_clean = self.choices(request)
        if if_harmed != if_clean and model in (if_harmed, if_clean):
            self._harmed.note(model == if_harmed, request.key_id, None, first=1.0)

    def estimate(self, request: UpscaleRequest) -> CostEstimate:
        """Estimate what an image will take, by its header and the length of its file.

        How much of it is flat or transparent is seen only in its pixels: the estimate is the mean
        over the images of its API key so far whose files are as long for a pixel, or over those of
        all keys; before the first it is a full one's, unless the file is that of a nearly flat one.
        Whether it is small is decided as for a full one.

        Whether an image is harmed is seen only in its pixels. Where its model depends on that, the
        estimate is the mean over the images of its API key so far; before the first of any key it
        is a harmed one's.
        """
        if_harmed, if_clean = self.choices(request)
        s_per_px = self._s_per_px(request, if_harmed)
        if if_clean != if_harmed:
            share = self._harmed.of(request.key_id, None, first=1.0)
            s_per_px = share * s_per_px + (1 - share) * self._s_per_px(request, if_clean)
        work_s = request.source_px * s_per_px
        other_s = self._encode_s(request) + self._openings.expect_s(if_harmed)
        is_quick = work_s + other_s <= max(SMALL_WORK_S, self._quick_s(request))
        is_small = is_quick and request.result_px <= SMALL_RESULT_PX
        names, first = _describe_content(request)
        work_s *= self._computed.of(*names, first=first)
        return CostEstimate(max(work_s + other_s, _LEAST_WORK_S), is_small)

    def expect(self, request: UpscaleRequest) -> Expectation:
        """Predict an upscale; see `upscaled.pool.executor.Executor.expect`."""
        models = dict.fromkeys(name for name in self.choices(request) if name)
        return Expectation(self.estimate(request).work_s, tuple(models))

    def seconds_per_px(self) -> dict[tuple[str, int], float]:
        """Return the measured seconds for an input pixel of 8 bits, by model and scale."""
        at_start = {
            (model, scale): seconds * self._passes_px(model, scale)
            for model, seconds in self._at_start.items()
            for scale in SCALES
        }
        measured = (each for each in self._measured.items() if not each[0].is_deep)
        return at_start | {(kind.model, kind.scale): sums.s_per_px for kind, sums in measured}

    def choices(self, request: UpscaleRequest) -> tuple[str, str]:
        """Return the models that an image would go to if it is harmed, and if it is not."""
        ladder = request.ladder or self.ladders.get(request.scale)
        if request.model or not ladder:
            return request.model, request.model
        px, is_deep = request.source_px, request.is_deep
        if_harmed = choose_rung(ladder, px, is_harmed=True, is_deep=is_deep)
        if_clean = choose_rung(ladder, px, is_harmed=False, is_deep=is_deep)
        return if_harmed.model, if_clean.model

    def _encode_s(self, request: UpscaleRequest) -> float:
        """Return the seconds of encoding after the last pixel, in formats where they are many."""
        form = request.output.format
        measured = self._encoded.get(form)
        s_per_px = measured.s_per_px if measured else FORMATS[form].encode_s_per_px
        return request.encoded_px * s_per_px

    def _quick_s(self, request: UpscaleRequest) -> float:
        """Return what the fastest model of a scale takes for the largest of small results."""
        px = SMALL_RESULT_PX / (request.result_px / request.source_px) if request.result_px else 0
        models = [rung.model for rung in self.ladders.get(request.scale, ())]
        return px * min((self._s_per_px(request, model) for model in models), default=math.inf)

    def _s_per_px(self, request: UpscaleRequest, model: str) -> float:
        kind = _Kind(model, request.scale, request.is_deep)
        return next(self._guesses(kind), _UNKNOWN_S_PER_PX)

    def _guesses(self, kind: _Kind) -> Iterator[float]:
        """Yield guesses of the seconds for an input pixel, the best founded first."""
        yield from self._measured_like(kind)
        if kind.model in self._at_start:
            yield self._at_start[kind.model] * self._passes_px(kind.model, kind.scale)
        yield from self._proportional(kind)
        yield from self._measured_like(kind._replace(is_deep=not kind.is_deep))

    def _measured_like(self, kind: _Kind) -> Iterator[float]:
        """Yield what was measured of the kind, or of the model at another scale."""
        if kind in self._measured:
            yield self._measured[kind].s_per_px
        if kind.is_deep:
            yield from self._measured_like(kind._replace(is_deep=False))
        passes_px = self._passes_px(kind.model, kind.scale)
        for scale in SCALES:
            other = kind._replace(scale=scale)
            if other != kind and other in self._measured:
                ratio = passes_px / self._passes_px(kind.model, scale)
                yield self._measured[other].s_per_px * ratio

    def _proportional(self, kind: _Kind) -> Iterator[float]:
        """Yield the seconds of the known model whose arithmetic is nearest, in proportion."""
        work = self._multiplications_per_px(kind.model, kind.scale)
        if not work:
            return
        by_distance = []
        for (other, scale), s_per_px in self.seconds_per_px().items():
            other_work = self._multiplications_per_px(other, scale)
            if scale == kind.scale and other_work:
                ratio = work / other_work
                by_distance.append((abs(math.log(ratio)), s_per_px * ratio))
        if by_distance:
            yield min(by_distance)[1]

    def _multiplications_per_px(self, model: str, scale: int) -> float:
        """Return a model's multiplications for one input pixel, nearly; 0 for an unknown one.

        Each weight of a convolution is used once at each pixel of the trunk; the few behind it that
        see more pixels add 8 % to RRDB's.
        """
        spec = self._spec(model)
        if spec is None:
            return 0
        side_px = 1024
        weights = spec.size_bytes * _BITS_OF_A_BYTE / spec.bits
        trunk_share = spec.trunk_pixels(side_px, side_px) / side_px**2
        return weights * trunk_share * self._passes_px(model, scale)

    def _passes_px(self, model: str, scale: int) -> int:
        """Return the pixels that go into the network for one of the image: over 1 in two passes."""
        spec = self._spec(model)
        px, gain = 1, spec.native_scale if spec else scale
        while spec is not None and spec.native_scale > 1 and gain < scale:
            px += gain**2
            gain *= spec.native_scale
        return px

    def _spec(self, model: str) -> ModelSpec | None:
        """Return a model's spec; one that is known is looked up once, for it does not change."""
        if model not in self._specs:
            try:
                self._specs[model] = self._store.find(model)
            except ModelError:
                return None
        return self._specs[model]


def _describe_content(request: UpscaleRequest) -> tuple[tuple[Hashable, ...], float]:
    """Return the names of images that are as full as this one may be, and the first guess of it."""
    bits_per_px = request.source_bytes * _BITS_OF_A_BYTE / request.source_px
    octave = math.frexp(bits_per_px)[1]
    is_flat = 0 < bits_per_px < _NEARLY_FLAT_BITS_PER_PX
    return ((request.key_id, octave), octave), _NEARLY_FLAT_SHARE if is_flat else 1.0


def estimate_wait_s(work_s: float, workers: int, starting_s: float = 0.0) -> int:
    """Return the whole seconds until workers have done `work_s`, from 1 to `MAX_RETRY_AFTER_S`.

    starting_s: until the first of them is ready.
    """
    wait_s = math.ceil(starting_s + work_s / max(1, workers))
    return min(MAX_RETRY_AFTER_S, max(1, wait_s))
