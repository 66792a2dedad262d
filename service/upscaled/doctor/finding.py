"""What a check found, for people and for programs."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """In the order of how bad it is."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report.

    check: what was looked at, in a word or two. found: what is, in one line, without a secret.
    advice: what to do; empty where nothing need be done.
    """

    check: str
    status: Status
    found: str
    advice: str = ""


def ok(check: str, found: str) -> Finding:
    return Finding(check, Status.OK, found)


def warning(check: str, found: str, advice: str) -> Finding:
    """It works, or will, but not as it should."""
    return Finding(check, Status.WARNING, found, advice)


def failure(check: str, found: str, advice: str) -> Finding:
    """The service does not start, or its answers fail."""
    return Finding(check, Status.FAILURE, found, advice)


def worst_of(findings: Iterable[Finding]) -> Status:
    """The worst status among them; `OK` where there are none."""
    return max((each.status for each in findings), key=list(Status).index, default=Status.OK)
