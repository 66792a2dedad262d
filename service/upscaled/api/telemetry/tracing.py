"""Export each request and its stages as OpenTelemetry spans over OTLP/HTTP, where that is set.

Spans are made of access records, so a server without traces pays nothing for them. The standard
`OTEL_*` variables set the receiver, its headers and how often. Spans hold routes, sizes and
outcomes; never a path, a URL, a key or a name.
"""

import time
from typing import TYPE_CHECKING, Final

import upscaled
from upscaled.api.telemetry.access_log import AccessRecord
from upscaled.config import Settings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.trace import Tracer

_NS: Final = 1_000_000_000
_OURS: Final = (
    *("request_id", "scale", "source", "source_bytes", "width_px", "height_px", "format"),
    *("result_bytes", "requested_model", "denoise", "model", "tempered_with", "engine"),
)
_ATTRIBUTES: Final = {name: f"upscaled.{name}" for name in _OURS} | {"error_code": "error.type"}


def open_tracing(settings: Settings) -> "Tracing | None":
    """Return the exporter; None, and nothing loaded, where the settings enable no traces."""
    if not settings.traces:
        return None
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    return Tracing(BatchSpanProcessor(OTLPSpanExporter()))


class Tracing:
    """Observer of access records; `processor` gets each span once it is complete."""

    def __init__(self, processor: "SpanProcessor") -> None:
        from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
        from opentelemetry.sdk.trace import TracerProvider

        # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win over ours.
        ours = {SERVICE_NAME: "upscaled", SERVICE_VERSION: upscaled.__version__}
        operators = Resource.create().attributes
        if str(operators[SERVICE_NAME]).startswith("unknown_service"):  # the SDK's own makeshift
            operators = {**operators, **ours}
        self._provider: TracerProvider = TracerProvider(
            resource=Resource({**ours, **operators}), shutdown_on_exit=False
        )
        self._provider.add_span_processor(processor)
        self._tracer: Tracer = self._provider.get_tracer("upscaled", upscaled.__version__)

    def observe(self, record: AccessRecord) -> None:
        """Make the spans of one request, below the client's own where it named one; note the id."""
        from opentelemetry.trace import (
            SpanKind,
            Status,
            StatusCode,
            format_trace_id,
            set_span_in_context,
        )
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        sent = {"traceparent": record.traceparent, "tracestate": record.tracestate}
        carrier = {name: value for name, value in sent.items() if value}
        clock_ns = time.time_ns() - round(time.perf_counter() * _NS)
        span = self._tracer.start_span(
            f"{record.method} {record.route}",
            context=TraceContextTextMapPropagator().extract(carrier),
            kind=SpanKind.SERVER,
            attributes=_describe(record),
            start_time=clock_ns + round(record.begun_s * _NS),
        )
        record.trace_id = format_trace_id(span.get_span_context().trace_id)
        if record.status is None or record.status >= 500:
            span.set_status(Status(StatusCode.ERROR))
        inside = set_span_in_context(span)
        for stage in record.stages if span.is_recording() else ():
            child = self._tracer.start_span(
                stage.stage, context=inside, start_time=clock_ns + round(stage.begun_s * _NS)
            )
            child.end(clock_ns + round(stage.ended_s * _NS))
        span.end(clock_ns + round((record.begun_s + record.seconds) * _NS))

    def close(self) -> None:
        """Send what is left; blocks for as long as the exporter's timeouts let it."""
        self._provider.shutdown()


def _describe(record: AccessRecord) -> dict[str, str | int]:
    attributes: dict[str, str | int] = {
        "http.request.method": record.method,
        "http.route": record.route,
    }
    if record.status is not None:
        attributes["http.response.status_code"] = record.status
    for name, attribute in _ATTRIBUTES.items():
        if (value := getattr(record, name)) is not None:
            attributes[attribute] = value
    return attributes
