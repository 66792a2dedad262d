"""Optional traces: each request and its stages as OpenTelemetry spans, sent over OTLP/HTTP.

Spans are made when a request is over, from the times it noted, so a server without traces pays
nothing for them. Where to, how often, with which headers: the standard `OTEL_*` variables. They
hold routes, sizes and outcomes; never a path, a URL, a key or a name.
"""

import time
from typing import TYPE_CHECKING, Final

import upscaled
from upscaled.api.telemetry.access_log import Exchange
from upscaled.config import Settings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.trace import Tracer

_NS: Final = 1_000_000_000
_FACTS: Final = {
    "request_id": "upscaled.request_id",
    "scale": "upscaled.scale",
    "source": "upscaled.source",
    "source_bytes": "upscaled.source_bytes",
    "width_px": "upscaled.width_px",
    "height_px": "upscaled.height_px",
    "format": "upscaled.format",
    "result_bytes": "upscaled.result_bytes",
    "requested_model": "upscaled.requested_model",
    "model": "upscaled.model",
    "tempered_with": "upscaled.tempered_with",
    "engine": "upscaled.engine",
    "error_code": "error.type",
}


def open_tracing(settings: Settings) -> "Tracing | None":
    """What the settings ask for; None, and nothing loaded, where they ask for no traces."""
    if not settings.traces:
        return None
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    return Tracing(BatchSpanProcessor(OTLPSpanExporter()))


class Tracing:
    """An observer of exchanges. `processor` gets each span when it is whole."""

    def __init__(self, processor: "SpanProcessor") -> None:
        from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
        from opentelemetry.sdk.trace import TracerProvider

        # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win over ours.
        ours = {SERVICE_NAME: "upscaled", SERVICE_VERSION: upscaled.__version__}
        told = Resource.create().attributes
        if str(told[SERVICE_NAME]).startswith("unknown_service"):  # the SDK's own makeshift
            told = {**told, **ours}
        self._provider: TracerProvider = TracerProvider(
            resource=Resource({**ours, **told}), shutdown_on_exit=False
        )
        self._provider.add_span_processor(processor)
        self._tracer: Tracer = self._provider.get_tracer("upscaled", upscaled.__version__)

    def observe(self, exchange: Exchange) -> None:
        """Tell of one exchange, below the client's own span where it named one, and note its id."""
        from opentelemetry.trace import (
            SpanKind,
            Status,
            StatusCode,
            format_trace_id,
            set_span_in_context,
        )
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        sent = {"traceparent": exchange.traceparent, "tracestate": exchange.tracestate}
        carrier = {name: value for name, value in sent.items() if value}
        clock_ns = time.time_ns() - round(time.perf_counter() * _NS)
        span = self._tracer.start_span(
            f"{exchange.method} {exchange.route}",
            context=TraceContextTextMapPropagator().extract(carrier),
            kind=SpanKind.SERVER,
            attributes=_describe(exchange),
            start_time=clock_ns + round(exchange.begun_s * _NS),
        )
        exchange.facts.trace_id = format_trace_id(span.get_span_context().trace_id)
        if exchange.status is None or exchange.status >= 500:
            span.set_status(Status(StatusCode.ERROR))
        inside = set_span_in_context(span)
        for stage in exchange.facts.stages if span.is_recording() else ():
            child = self._tracer.start_span(
                stage.stage, context=inside, start_time=clock_ns + round(stage.begun_s * _NS)
            )
            child.end(clock_ns + round(stage.ended_s * _NS))
        span.end(clock_ns + round((exchange.begun_s + exchange.seconds) * _NS))

    def close(self) -> None:
        """Send what is left. Blocks, for as long as the exporter's timeouts let it."""
        self._provider.shutdown()


def _describe(exchange: Exchange) -> dict[str, str | int]:
    attributes: dict[str, str | int] = {
        "http.request.method": exchange.method,
        "http.route": exchange.route,
    }
    if exchange.status is not None:
        attributes["http.response.status_code"] = exchange.status
    for name, attribute in _FACTS.items():
        if (value := getattr(exchange.facts, name)) is not None:
            attributes[attribute] = value
    return attributes
