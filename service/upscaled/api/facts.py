"""What one exchange turned out to be: filled in on its way, then logged, counted and traced."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, cast, get_args

from starlette.requests import Request
from starlette.types import Scope

from upscaled.errors import RefusalReason
from upscaled.pool.executor import StageTimes

Stage = Literal["receive", "fetch", "queue", "decode", "network", "encode", "store"]
STAGES: Final[tuple[Stage, ...]] = get_args(Stage)
"""receive: the request's body. fetch: what `image_url` names. store: the result, on disk."""


class StageSpan(NamedTuple):
    """One stage of a request; both times are of `time.perf_counter`."""

    stage: Stage
    begun_s: float
    ended_s: float

    @property
    def seconds(self) -> float:
        return self.ended_s - self.begun_s


@dataclass(slots=True)
class Facts:
    """Unknown facts stay None. Never a key, a URL, a path or a file name.

    refusal: why the answer is 429. source: "upload" or "url". requested_model: the one that the
    request named, a model that is present. model: the one that was taken. tempered_with: the
    faithful model that its result was mixed with. engine: what ran the model, as "torch float32".
    trace_id: where the request is traced. stages: those that came to an end, in their order.
    """

    request_id: str
    key_name: str | None = None
    error_code: str | None = None
    error_detail: str | None = None
    refusal: RefusalReason | None = None
    scale: int | None = None
    source: str | None = None
    source_bytes: int | None = None
    width_px: int | None = None
    height_px: int | None = None
    format: str | None = None
    result_bytes: int | None = None
    result_width_px: int | None = None
    result_height_px: int | None = None
    requested_model: str | None = None
    model: str | None = None
    tempered_with: str | None = None
    engine: str | None = None
    trace_id: str | None = None
    stages: list[StageSpan] = field(default_factory=list)

    @contextmanager
    def timing(self, stage: Stage) -> Iterator[None]:
        """Note the time that the block takes, if it comes to its end."""
        begun_s = time.perf_counter()
        yield
        self.stages.append(StageSpan(stage, begun_s, time.perf_counter()))

    def note_work(self, admitted_s: float, times: StageTimes) -> None:
        """What was done behind the boundary, stage after stage from when it was admitted."""
        for stage, seconds in (
            ("queue", times.queue_s),
            ("decode", times.decode_s),
            ("network", times.network_s),
            ("encode", times.encode_s),
        ):
            self.stages.append(StageSpan(cast(Stage, stage), admitted_s, admitted_s + seconds))
            admitted_s += seconds


class Exchange(NamedTuple):
    """A request and its answer, once all is over.

    route: the route's template, "other" where none fits: never a path that a client made up.
    status: None where nothing was answered. begun_s: of `time.perf_counter`. ended_at_s: since
    1970. traceparent, tracestate: what the client sent of W3C Trace Context.
    """

    method: str
    route: str
    status: int | None
    begun_s: float
    seconds: float
    ended_at_s: float
    traceparent: str | None
    tracestate: str | None
    facts: Facts


def facts_of(request: Request) -> Facts:
    return facts_in(request.scope)


def facts_in(scope: Scope) -> Facts:
    return cast(Facts, scope["state"]["facts"])
