"""Collect one access record for each request and hand it to the log, the metrics and the traces.

Observers run in a thread of their own, for many records at once. At the end of each request, with
caches full of pixels, they took 200 us of it on a busy machine; in this thread they take less, and
no response waits for them, nor for a slow terminal or pipe.
"""

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

from starlette.types import Scope

from upscaled.errors import RefusalReason
from upscaled.image.types import Header
from upscaled.logs import event
from upscaled.upscale.result import Result
from upscaled_models.registry import split_strength

Stage = Literal["receive", "fetch", "queue", "decode", "network", "encode", "store"]
STAGES: Final[tuple[Stage, ...]] = get_args(Stage)
"""receive: the request's body. fetch: what `image_url` names. store: the result, on disk."""
FLUSH_EVERY_S: Final = 0.5
"""Records wait so long for others: one wake-up of the thread then serves many of them."""
CLIENT_CLOSED_REQUEST: Final = 499
"""The status of a request whose client disconnected before the response; nginx logs the same."""

_logger: Final = logging.getLogger(__name__)
# Probes call these every few seconds: their successes are logged as DEBUG.
_PROBES: Final = frozenset({"/healthz", "/readyz", "/metrics"})


class StageSpan(NamedTuple):
    """One stage of a request; both times are of `time.perf_counter`."""

    stage: Stage
    begun_s: float
    ended_s: float

    @property
    def seconds(self) -> float:
        return self.ended_s - self.begun_s


@dataclass(slots=True)
class AccessRecord:
    """Access record of one request; a field is None until it is known.

    It never holds a key, a URL, a path or a file name.

    route: the template, "other" where none matches: never a path that a client chose. status: None
    where no response was begun. begun_s: of `time.perf_counter`. ended_at_s: since 1970.
    traceparent, tracestate: the request's headers of W3C Trace Context. refusal: why the status is
    429. handling: of an accepted request, where not by an upscale. source: "upload" or "url".
    requested_model, denoise: of the request, as accepted. model, engine: what made the result,
    as "torch float32". tempered_with: the faithful model it was mixed with. result_format: as
    "jpeg". device_s: of this image. credits: charged. trace_id: where it is traced. stages: those
    that ended, in their order.
    """

    request_id: str
    method: str = "other"
    route: str = "other"
    status: int | None = None
    begun_s: float = field(default_factory=time.perf_counter)
    seconds: float = 0.0
    ended_at_s: float = 0.0
    traceparent: str | None = None
    tracestate: str | None = None
    key_id: int | None = None
    key_name: str | None = None
    error_code: str | None = None
    error_detail: str | None = None
    refusal: RefusalReason | None = None
    handling: Literal["dry run", "job", "replay", "reuse"] | None = None
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
    denoise: float | None = None
    model: str | None = None
    tempered_with: str | None = None
    engine: str | None = None
    result_format: str | None = None
    device_s: float | None = None
    credits: int = 0
    trace_id: str | None = None
    stages: list[StageSpan] = field(default_factory=list)

    @contextmanager
    def timing(self, stage: Stage) -> Iterator[None]:
        """Record how long the block takes, unless it raises."""
        begun_s = time.perf_counter()
        yield
        self.stages.append(StageSpan(stage, begun_s, time.perf_counter()))

    def note_request(self, scale: int, model: str, source_bytes: int) -> None:
        """Record the parameters of the request; `model` with its strength, "" for none."""
        self.scale, self.source_bytes = scale, source_bytes
        name, self.denoise = split_strength(model)
        self.requested_model = name or None

    def note_header(self, header: Header) -> None:
        self.width_px, self.height_px = header.width_px, header.height_px
        self.format = header.format

    def note_result(self, queued_s: float, result: Result) -> None:
        """Record the result, and its stages from `queued_s` on, of `time.perf_counter`."""
        self.model, self.engine = result.model, result.label or None
        self.tempered_with = result.tempered_with or None
        self.result_format = result.format
        self.device_s = result.timings.device_s
        self.result_bytes = result.size_bytes
        self.result_width_px, self.result_height_px = result.width_px, result.height_px
        for stage, seconds in result.timings.stages():
            self.stages.append(StageSpan(cast(Stage, stage), queued_s, queued_s + seconds))
            queued_s += seconds

    def end(self) -> None:
        self.seconds = time.perf_counter() - self.begun_s
        self.ended_at_s = time.time()


_LOGGED_FIRST: Final = ("method", "route", "status")
_OF_USAGE: Final = ("key_id", "device_s", "credits")
_NOT_LOGGED: Final = (
    *_OF_USAGE,
    "begun_s",
    "seconds",
    "ended_at_s",
    "traceparent",
    "tracestate",
    "stages",
)
_LOGGED: Final = tuple(
    each.name for each in fields(AccessRecord) if each.name not in (*_LOGGED_FIRST, *_NOT_LOGGED)
)

Observer = Callable[[AccessRecord], None]
"""Called for each record, in the order in which the requests ended, by one thread at a time."""


def record_of(scope: Scope) -> AccessRecord:
    """Return the access record that the middleware opened for this request."""
    return cast(AccessRecord, scope["state"]["access_record"])


class Reporter:
    """Hand the records of finished requests to observers, in a background thread.

    The thread starts with the first record and ends with `close`. `in_flight` counts requests.
    """

    def __init__(self, observers: Sequence[Observer], every_s: float = FLUSH_EVERY_S) -> None:
        self.in_flight = 0
        self._observers = tuple(observers)
        self._every_s = every_s
        self._pending: deque[AccessRecord] = deque()
        self._flushing = threading.Lock()
        self._is_wanted = threading.Event()
        self._is_closed = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, record: AccessRecord) -> None:
        """Report a record within `every_s` and a little; only the event loop may call this."""
        self._pending.append(record)
        if self._is_closed.is_set():
            self.flush()
        elif not self._is_wanted.is_set():
            self._is_wanted.set()
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._flush_until_closed, name="reporter", daemon=True
                )
                self._thread.start()

    def flush(self) -> None:
        """Report all pending records now; any thread may call this."""
        with self._flushing:
            while self._pending:
                record = self._pending.popleft()
                for observe in self._observers:
                    try:
                        observe(record)
                    except Exception:  # the other observers, and later records, must be served
                        extra = event("crash", request_id=record.request_id)
                        _logger.exception("an observer of access records failed", extra=extra)

    async def close(self) -> None:
        """Report what is pending; later records are reported at once."""
        self._is_closed.set()
        self._is_wanted.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)
        await asyncio.to_thread(self.flush)

    def _flush_until_closed(self) -> None:
        while not self._is_closed.is_set():
            self._is_wanted.wait()
            self._is_closed.wait(self._every_s)
            self._is_wanted.clear()
            self.flush()


def log_request(record: AccessRecord) -> None:
    """Write the request's log line: sizes, stages in milliseconds, and the outcome."""
    level = choose_level(record)
    if not _logger.isEnabledFor(level):
        return
    known: dict[str, object] = {name: getattr(record, name) for name in _LOGGED_FIRST}
    known["outcome"] = classify_outcome(record.status)
    for name in _LOGGED:
        if (value := getattr(record, name)) is not None:
            known[name] = value
    for span in record.stages:
        known[f"{span.stage}_ms"] = round(span.seconds * 1000, 2)
    known["total_ms"] = round(record.seconds * 1000, 2)
    line = _logger.makeRecord(
        _logger.name,
        level,
        "",
        0,
        "%s %s",
        (record.method, record.route),
        None,
        extra={"event": "request", "fields": known},
    )
    line.created = record.ended_at_s  # the line may be written a moment later
    _logger.handle(line)


def choose_level(record: AccessRecord) -> int:
    """Return ERROR for a failure of this service, WARNING for readiness that is refused.

    Readiness is probed every few seconds, and its cause is logged as an error once.
    """
    if classify_outcome(record.status) == "failed":
        is_readiness = record.status == HTTPStatus.SERVICE_UNAVAILABLE
        return logging.WARNING if is_readiness else logging.ERROR
    is_probe = record.route in _PROBES and record.status == HTTPStatus.OK
    return logging.DEBUG if is_probe else logging.INFO


def classify_outcome(status: int | None) -> str:
    """Return "ok", "refused" (status 4xx), "failed" (5xx) or "gone" (the client left)."""
    if status is None or status == CLIENT_CLOSED_REQUEST:
        return "gone"
    if status < HTTPStatus.BAD_REQUEST:
        return "ok"
    return "refused" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "failed"
