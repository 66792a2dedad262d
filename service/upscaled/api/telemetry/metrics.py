"""Count requests, images and credits for Prometheus.

Values of labels are from small closed sets: routes, stages, error codes. None holds a key's
name or anything else that a client chose.
"""

import platform
from collections.abc import Mapping, Sequence
from math import nan
from typing import Final, Literal

import prometheus_client as prometheus

import upscaled
from upscaled.api.schemas import UPSCALE_PATH
from upscaled.api.telemetry.access_log import STAGES, AccessRecord
from upscaled.errors import REFUSAL_REASONS, ServiceError
from upscaled.state import Swept
from upscaled.state.job_rows import ENDED_STATES, JobState
from upscaled.state.webhook_rows import DELIVERY_STATES
from upscaled.upscale.model_choice import Rung
from upscaled.upscale.result import Result

CreditEvent = Literal["held", "captured", "released"]

_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60, 180)


class Metrics:
    """The front end's metrics, in a registry of its own for each app; any thread may write."""

    def __init__(self) -> None:
        self.registry = prometheus.CollectorRegistry()
        prometheus.ProcessCollector(registry=self.registry)
        build = prometheus.Info("upscaled_build", "The version that runs", registry=self.registry)
        build.info({"version": upscaled.__version__, "python": platform.python_version()})
        self.requests = self._counter(
            "requests", "Answers, by how they ended", "route", "status", "error_code"
        )
        self.request_seconds = self._histogram(
            "request_seconds", "From a request's head to its answer's last byte", "route"
        )
        self.front_end_restarts = self._counter(
            "front_end_restarts", "Front ends that hung or died and were replaced"
        )
        self.open_requests = self._gauge("open_requests", "Requests under way")
        self.credits = self._counter(
            "credits", "Credits held before work, captured for a delivery, released", "event"
        )
        self.credits_pending = self._gauge(
            "credits_pending", "Credits of undelivered images that could not be given back yet"
        )
        self.state_works = self._gauge(
            "state_works", "Whether the last check could write to the database and store a result"
        )
        self.refusals = self._counter("refusals", "Answers 429, by what was exhausted", "reason")
        self.jobs = self._counter("jobs", "Jobs that ended here, by how they ended", "status")
        self.webhooks = self._counter(
            "webhooks", "Attempts to deliver a webhook, by the state that each left it in", "state"
        )
        self._declare_images()
        self._declare_results()
        self._begin_at_zero()

    def _declare_images(self) -> None:
        self.stage_seconds = self._histogram(
            "stage_seconds", "Time of one delivered image in each stage", "stage"
        )
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

    def _declare_results(self) -> None:
        self.results_stored = self._counter("results_stored", "Results stored and delivered as URL")
        self.results_stored_bytes = self._counter(
            "results_stored_bytes", "Bytes of the results stored"
        )
        self.results_expired = self._counter(
            "results_expired", "Results removed after their time, and unfinished parts"
        )
        self.results_kept = self._gauge(
            "results_kept", "Valid results on disk, at the last sweep; NaN with a bucket"
        )
        self.results_kept_bytes = self._gauge(
            "results_kept_bytes",
            "Bytes of the valid results on disk, at the last sweep; NaN with a bucket",
        )
        self.data_free_bytes = self._gauge(
            "data_free_bytes",
            "Free bytes on the disk of results, at the last sweep; with a bucket, on that of the "
            "data folder",
        )

    def observe(self, record: AccessRecord) -> None:
        route = record.route
        self.requests.labels(route, str(record.status or 0), record.error_code or "").inc()
        self.request_seconds.labels(route).observe(record.seconds)
        if record.refusal is not None:
            self.refusals.labels(record.refusal).inc()
        # A replayed answer has no model: its image was counted when it was made.
        if route != UPSCALE_PATH or record.status != 200 or record.model is None:
            return
        for span in record.stages:
            self._stages[span.stage].observe(span.seconds)
        self._count_image(
            # The worker's names, never the client's: a model that is not present is refused before.
            (record.model, str(record.scale or ""), record.tempered_with or ""),
            source_bytes=record.source_bytes or 0,
            result_bytes=record.result_bytes or 0,
            pixels=(record.result_width_px or 0) * (record.result_height_px or 0),
        )

    def note_job(self, status: JobState) -> None:
        self.jobs.labels(status).inc()

    def note_job_result(self, result: Result, *, scale: int, source_bytes: int) -> None:
        """Count the image of a job that succeeded, as that of a request."""
        for stage, seconds in result.timings.stages():
            self.stage_seconds.labels(stage).observe(seconds)
        self._count_image(
            (result.model, str(scale), result.tempered_with),
            source_bytes=source_bytes,
            result_bytes=result.size_bytes,
            pixels=result.width_px * result.height_px,
        )
        self.note_stored(result.size_bytes)

    def _count_image(
        self, labels: tuple[str, str, str], *, source_bytes: int, result_bytes: int, pixels: int
    ) -> None:
        self.images.labels(*labels).inc()
        self.source_bytes.inc(source_bytes)
        self.result_bytes.inc(result_bytes)
        self.output_pixels.inc(pixels)

    def expect(self, ladders: Mapping[int, Sequence[Rung]]) -> None:
        """Start a series at zero for each model that `auto` may choose: see `_begin_at_zero`."""
        for scale, ladder in ladders.items():
            for rung in ladder:
                self.images.labels(rung.model, str(scale), rung.tempered_with)

    def note_credit(self, event: CreditEvent) -> None:
        self.credits.labels(event).inc()

    def note_stored(self, size_bytes: int) -> None:
        self.results_stored.inc()
        self.results_stored_bytes.inc(size_bytes)

    def note_sweep(self, swept: Swept) -> None:
        """Record a sweep's figures, without holds of processes that ended: no credits of ours."""
        self.results_expired.inc(swept.results.removed)
        kept, kept_bytes = swept.results.kept, swept.results.kept_bytes
        self.results_kept.set(nan if kept is None else kept)
        self.results_kept_bytes.set(nan if kept_bytes is None else kept_bytes)
        self.data_free_bytes.set(swept.free_bytes)

    def _begin_at_zero(self) -> None:
        """Start all series at zero: one that starts at its first event hides it from `rate()`."""
        self._stages = {stage: self.stage_seconds.labels(stage) for stage in STAGES}
        self.request_seconds.labels(UPSCALE_PATH)
        self.requests.labels(UPSCALE_PATH, "200", "")
        for kind in ServiceError.__subclasses__():
            self.requests.labels(UPSCALE_PATH, str(kind.status), kind.error_code)
        for reason in REFUSAL_REASONS:
            self.refusals.labels(reason)
        for status in ENDED_STATES:
            self.jobs.labels(status)
        for state in DELIVERY_STATES:
            self.webhooks.labels(state)
        for event in ("held", "captured", "released"):
            self.credits.labels(event)

    def _counter(self, name: str, meaning: str, *labels: str) -> prometheus.Counter:
        return prometheus.Counter(f"upscaled_{name}", meaning, labels, registry=self.registry)

    def _gauge(self, name: str, meaning: str) -> prometheus.Gauge:
        return prometheus.Gauge(f"upscaled_{name}", meaning, registry=self.registry)

    def _histogram(self, name: str, meaning: str, label: str) -> prometheus.Histogram:
        return prometheus.Histogram(
            f"upscaled_{name}", meaning, [label], buckets=_SECONDS, registry=self.registry
        )
