"""The one log line of an exchange."""

import logging
from dataclasses import fields
from http import HTTPStatus
from typing import Final

from upscaled.api.facts import Exchange, Facts

_logger: Final = logging.getLogger(__name__)
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
