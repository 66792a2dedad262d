"""`upscaled audit`: who has changed keys, credits and webhooks, when, and how."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from upscaled.cli.console import opened_state
from upscaled.cli.report import AsJson, Since, choose_format, parse_time, print_report

if TYPE_CHECKING:
    from upscaled.state.audit import AuditEntry

_NAMES: Final = ("at", "actor", "action", "subject", "key_id", "details")


def run(since: Since = "30d", as_json: AsJson = False) -> None:
    """Print each change by a keys, credits or webhooks command, or over HTTP, oldest first.

    SUBJECT is the key's name before the change, or the job whose webhook was sent again.
    """
    since_s = parse_time(since, "--since", datetime.now(UTC)).timestamp()
    with opened_state() as state:
        entries = state.audit.list(since_s=since_s)
    rows = [_describe(entry) for entry in entries]
    if not as_json:
        rows = [{**row, "details": _join(entry)} for row, entry in zip(rows, entries, strict=True)]
    print_report(_NAMES, rows, choose_format(as_json=as_json))


def _describe(entry: "AuditEntry") -> Mapping[str, object]:
    return {
        "at": datetime.fromtimestamp(entry.at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "actor": entry.actor,
        "action": entry.action,
        "subject": entry.subject,
        "key_id": entry.key_id,
        "details": entry.details,
    }


def _join(entry: "AuditEntry") -> str:
    return " ".join(f"{name}={value}" for name, value in entry.details.items()) or "-"
