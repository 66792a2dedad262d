"""Findings of the checks, for people and for programs."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

INSTALL: Final = (
    "install upscaled again (`pip install -r requirements-torch.lock` and `pip install "
    "--require-hashes -r requirements.lock`)"
)
INSTALL_OR_EXACT: Final = (
    f"{INSTALL}, or keep to plain torch by UPSCALED_PRECISION=exact; if memory ran out, the "
    "kernel's log (`dmesg`) says so"
)
"""Advice where an engine cannot be opened or used."""


class Status(StrEnum):
    """Status of a finding, from good to bad.

    A warning: it works, or will, but not as it should. A failure: the service does not start, or
    its answers fail.
    """

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True)
class Finding:
    """Finding of a check, one line of the report.

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
    return Finding(check, Status.WARNING, found, advice)


def failure(check: str, found: str, advice: str) -> Finding:
    return Finding(check, Status.FAILURE, found, advice)


def worst_of(findings: Iterable[Finding]) -> Status:
    """Return the worst status of the findings; `OK` where there are none."""
    return max((each.status for each in findings), key=list(Status).index, default=Status.OK)
