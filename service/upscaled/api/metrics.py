"""What the front end counts for Prometheus, in a registry of its own for each app.

Labels take their values from small closed sets: routes, stages, error codes. None holds a key's
name or anything else that a client chose.
"""

import platform
from collections.abc import Mapping, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector

import upscaled
from upscaled.api.charge import CreditEvent
from upscaled.api.facts import STAGES, Exchange
from upscaled.errors import REFUSAL_REASONS, ServiceError
from upscaled.state import Swept
from upscaled.upscale.model_choice import Rung

_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60, 180)
UPSCALE_ROUTE: Final = "/v1/upscale"


class Metrics:
    """May be written by any thread; read by `upscaled.api.exposition`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        build = Info("upscaled_build", "The version that runs", registry=self.registry)
        build.info({"version": upscaled.__version__, "python": platform.python_version()})
        self.requests = self._counter(
            "requests", "Answers, by how they ended", "route", "status", "error_code"
        )
        self.request_seconds = self._histogram(
            "request_seconds", "From a request's head to its answer's last byte", "route"
        )
        self.stage_seconds = self._histogram(
            "stage_seconds", "Time of one delivered image in each stage", "stage"
        )
        self.open_requests = self._gauge("open_requests", "Requests under way")
        self.source_bytes = self._counter("source_bytes", "Bytes of the images upscaled")
        self.result_bytes = self._counter("result_bytes", "Bytes of the images delivered")
        self.output_pixels = self._counter("output_pixels", "Pixels of the images delivered")
        self.images = self._counter(
            "images",
            "Images delivered, by the model that made them and the one they were tempered with",
            "model",
            "scale",
            "tempered_with",
        )
        self.credits = self._counter(
            "credits", "Credits held before work, captured for a delivery, released", "event"
        )
        self.credits_owed = self._gauge(
            "credits_owed", "Credits of undelivered images that could not be given back yet"
        )
        self.state_works = self._gauge(
            "state_works", "Whether the last check could write to the database and store a result"
        )
        self.results_stored = self._counter("results_stored", "Results stored and delivered as URL")
        self.results_stored_bytes = self._counter("results_stored_bytes", "Bytes of those")
        self.results_expired = self._counter(
            "results_expired", "Results removed after their time, and parts nobody finished"
        )
        self.results_kept = self._gauge("results_kept", "Valid results on disk, at the last sweep")
        self.results_kept_bytes = self._gauge("results_kept_bytes", "Bytes of those")
        self.data_free_bytes = self._gauge(
            "data_free_bytes", "Free bytes on the disk of results, at the last sweep"
        )
        self.refusals = self._counter("refusals", "Answers 429, by what was exhausted", "reason")
        self._begin_at_zero()

    def observe(self, exchange: Exchange) -> None:
        """Count one exchange that is over."""
        facts, route = exchange.facts, exchange.route
        self.requests.labels(route, str(exchange.status or 0), facts.error_code or "").inc()
        self.request_seconds.labels(route).observe(exchange.seconds)
        if facts.refusal is not None:
            self.refusals.labels(facts.refusal).inc()
        if route != UPSCALE_ROUTE or exchange.status != 200:
            return
        for span in facts.stages:
            self._stages[span.stage].observe(span.seconds)
        self.source_bytes.inc(facts.source_bytes or 0)
        self.result_bytes.inc(facts.result_bytes or 0)
        self.output_pixels.inc((facts.result_width_px or 0) * (facts.result_height_px or 0))
        # The worker's names, never the client's: a model that is not present is refused before.
        labels = (facts.model or "", str(facts.scale or ""), facts.tempered_with or "")
        self.images.labels(*labels).inc()

    def expect(self, ladders: Mapping[int, Sequence[Rung]]) -> None:
        """Begin the series of what `auto` may choose at zero: see `_begin_at_zero`."""
        for scale, ladder in ladders.items():
            for rung in ladder:
                self.images.labels(rung.model, str(scale), rung.tempered_with)

    def note_credit(self, event: CreditEvent) -> None:
        self.credits.labels(event).inc()

    def note_stored(self, size_bytes: int) -> None:
        self.results_stored.inc()
        self.results_stored_bytes.inc(size_bytes)

    def note_sweep(self, swept: Swept) -> None:
        """Holds that a sweep gives back were taken by processes that are gone: not our credits."""
        self.results_expired.inc(swept.results.removed)
        self.results_kept.set(swept.results.kept)
        self.results_kept_bytes.set(swept.results.kept_bytes)
        self.data_free_bytes.set(swept.free_bytes)

    def _begin_at_zero(self) -> None:
        """A series that begins at its first event hides that event from `rate()`."""
        self._stages = {stage: self.stage_seconds.labels(stage) for stage in STAGES}
        self.request_seconds.labels(UPSCALE_ROUTE)
        self.requests.labels(UPSCALE_ROUTE, "200", "")
        for kind in ServiceError.__subclasses__():
            self.requests.labels(UPSCALE_ROUTE, str(kind.status), kind.error_code)
        for reason in REFUSAL_REASONS:
            self.refusals.labels(reason)
        for event in ("held", "captured", "released"):
            self.credits.labels(event)

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(f"upscaled_{name}", meaning, labels, registry=self.registry)

    def _gauge(self, name: str, meaning: str) -> Gauge:
        return Gauge(f"upscaled_{name}", meaning, registry=self.registry)

    def _histogram(self, name: str, meaning: str, label: str) -> Histogram:
        return Histogram(
            f"upscaled_{name}", meaning, [label], buckets=_SECONDS, registry=self.registry
        )
