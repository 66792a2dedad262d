"""`upscaled audit`: who has changed keys, credits and webhooks, when, and how."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from upscaled.cli import console

if TYPE_CHECKING:
    from upscaled.state.audit import AuditEntry

_NAMES: Final = ("at", "actor", "action", "subject", "key_id", "details")


def run(since: console.Since = "30d", as_json: console.AsJson = False) -> None:
    """Print each change by a keys, credits or webhooks command, or over HTTP, oldest first.

    SUBJECT is the key's name before the change, or the job whose webhook was sent again.
    """
    from upscaled.api.admin.schemas import AuditedChange

    since_s = console.parse_time(since, "--since", datetime.now(UTC)).timestamp()
    with console.opened_state() as state:
        entries = state.audit.list(since_s=since_s)
    rows = [AuditedChange.of(entry).model_dump(mode="json") for entry in entries]
    if not as_json:
        rows = [{**row, "details": _join(entry)} for row, entry in zip(rows, entries, strict=True)]
    console.print_report(_NAMES, rows, console.choose_format(as_json=as_json))


def _join(entry: "AuditEntry") -> str:
    return " ".join(f"{name}={value}" for name, value in entry.details.items()) or "-"
