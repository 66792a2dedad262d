"""The one log line of an exchange."""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from http import HTTPStatus
from typing import Final, Literal, NamedTuple, cast, get_args

from starlette.requests import Request
from starlette.types import Scope

from upscaled.errors import RefusalReason
from upscaled.logs import event
from upscaled.pool.executor import StageTimes

_logger: Final = logging.getLogger(__name__)
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


Observer = Callable[[Exchange], None]
"""Called for each exchange in the order in which they ended, by any thread, one at a time."""

EVERY_S: Final = 0.5


class Report:
    """What is to be told, and the number of requests `under_way`.

    Its thread begins with the first exchange and ends with `close`.
    """

    def __init__(self, observers: Sequence[Observer], every_s: float = EVERY_S) -> None:
        self.under_way = 0
        self._observers = tuple(observers)
        self._every_s = every_s
        self._over: deque[Exchange] = deque()
        self._telling = threading.Lock()
        self._is_wanted = threading.Event()
        self._is_closed = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, exchange: Exchange) -> None:
        """Have an exchange told of, within `every_s` and a little. Only by the event loop."""
        self._over.append(exchange)
        if self._is_closed.is_set():
            self.tell()
        elif not self._is_wanted.is_set():
            self._is_wanted.set()
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._tell_until_closed, name="report", daemon=True
                )
                self._thread.start()

    def tell(self) -> None:
        """Tell of everything so far, now; from any thread."""
        with self._telling:
            while self._over:
                exchange = self._over.popleft()
                for observe in self._observers:
                    self._tell_one(observe, exchange)

    async def close(self) -> None:
        """Tell of the rest; whatever still comes is told of at once."""
        self._is_closed.set()
        self._is_wanted.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)
        await asyncio.to_thread(self.tell)

    def _tell_until_closed(self) -> None:
        while not self._is_closed.is_set():
            self._is_wanted.wait()
            self._is_closed.wait(self._every_s)
            self._is_wanted.clear()
            self.tell()

    def _tell_one(self, observe: Observer, exchange: Exchange) -> None:
        try:
            observe(exchange)
        except Exception:  # the others hear of it still, and of all that follow
            told = event("crash", request_id=exchange.facts.request_id)
            _logger.exception("an exchange could not be told of", extra=told)


# Asked every few seconds by machines: their answers are told only where they are no success.
_PROBES: Final = frozenset({"/healthz", "/readyz", "/metrics"})
_FACTS: Final = tuple(field.name for field in fields(Facts) if field.name != "stages")


def log_exchange(exchange: Exchange) -> None:
    """Write the line: sizes, stages in milliseconds, and how it ended; our failures as errors."""
    level = choose_level(exchange)
    if not _logger.isEnabledFor(level):
        return
    facts = exchange.facts
    known: dict[str, object] = {
        "method": exchange.method,
        "route": exchange.route,
        "status": exchange.status,
        "outcome": judge_outcome(exchange.status),
    }
    for name in _FACTS:
        if (value := getattr(facts, name)) is not None:
            known[name] = value
    for span in facts.stages:
        known[f"{span.stage}_ms"] = round(span.seconds * 1000, 2)
    known["total_ms"] = round(exchange.seconds * 1000, 2)
    record = _logger.makeRecord(
        _logger.name,
        level,
        "",
        0,
        "%s %s",
        (exchange.method, exchange.route),
        None,
        extra={"event": "request", "fields": known},
    )
    record.created = exchange.ended_at_s  # it may be told of a moment later
    _logger.handle(record)


def choose_level(exchange: Exchange) -> int:
    """ERROR for an answer that is this service's own failure. Not being ready is a WARNING: it is
    asked for every few seconds, and its cause is logged as an error once."""
    if judge_outcome(exchange.status) == "failed":
        is_asked_for = exchange.status == HTTPStatus.SERVICE_UNAVAILABLE
        return logging.WARNING if is_asked_for else logging.ERROR
    is_probe = exchange.route in _PROBES and exchange.status == HTTPStatus.OK
    return logging.DEBUG if is_probe else logging.INFO


def judge_outcome(status: int | None) -> str:
    """One of "ok", "refused" (the request was at fault), "failed" (the service was), or "gone"."""
    if status is None or status == 499:
        return "gone"
    if status < HTTPStatus.BAD_REQUEST:
        return "ok"
    return "refused" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "failed"
