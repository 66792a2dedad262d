"""Run all checks at once, each in a thread with a deadline, and report in a fixed order."""

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from upscaled.config import Settings
from upscaled.doctor.database import check_database
from upscaled.doctor.engines import check_engines
from upscaled.doctor.environment import check_access, check_settings
from upscaled.doctor.finding import Finding, failure
from upscaled.doctor.folders import check_folders, check_results
from upscaled.doctor.hardware import check_clock, check_hardware, read_hardware
from upscaled.doctor.port import check_port
from upscaled.doctor.public_url import check_certificate, check_public_url
from upscaled.doctor.weights import check_models

QUICK_S: Final = 12.0
ENGINES_S: Final = 70.0


@dataclass(frozen=True, slots=True)
class Check:
    """Check with its deadline; `name` heads the line that reports that it took longer."""

    name: str
    run: Callable[[], list[Finding]]
    within_s: float = QUICK_S


def list_checks(
    settings: Settings,
    environment: Mapping[str, str],
    *,
    host: str,
    port: int,
    is_expected: bool,
    may_connect: bool,
) -> list[Check]:
    """Return every check, in the order of the report.

    environment: what the settings were read from. host, port: where the service listens, and if it
    `is_expected` does now. may_connect: to the public URL where it leads elsewhere, too.
    """
    is_tls = bool(settings.tls_cert)
    return [
        Check("settings", lambda: check_settings(environment)),
        Check("processor", lambda: check_hardware(read_hardware(), settings)),
        Check("data folder", lambda: check_folders(settings)),
        Check("clock", lambda: check_clock(settings)),
        Check("database", lambda: check_database(settings)),
        Check("results", lambda: check_results(settings)),
        Check("models", lambda: check_models(settings)),
        Check("access", lambda: check_access(settings, host)),
        Check("certificate", lambda: check_certificate(settings)),
        Check("port", lambda: check_port(host, port, is_expected=is_expected, is_tls=is_tls)),
        Check("public URL", lambda: check_public_url(settings, may_connect=may_connect)),
        Check("engine", lambda: check_engines(settings, environment), ENGINES_S),
    ]


def run_checks(checks: Sequence[Check]) -> Iterator[Finding]:
    """Yield each finding once those before it are known; a check that hangs is left behind."""
    started = time.monotonic()
    answers = [_start(check) for check in checks]
    for check, answer in zip(checks, answers, strict=True):
        left_s = max(0.0, check.within_s - (time.monotonic() - started))
        try:
            yield from answer.get(timeout=left_s)
        except queue.Empty:
            yield failure(
                check.name,
                f"took longer than {check.within_s:.0f} s",
                "see whether the disk, the database or the name lookup hangs, then try again",
            )


def _start(check: Check) -> "queue.SimpleQueue[list[Finding]]":
    answer: queue.SimpleQueue[list[Finding]] = queue.SimpleQueue()

    def run() -> None:
        try:
            findings = check.run()
        except Exception as error:  # noqa: BLE001  (becomes a line of the report)
            found = f"the check itself failed: {type(error).__name__}: {error}"
            findings = [failure(check.name, found, "report this as a bug")]
        answer.put(findings)

    threading.Thread(target=run, daemon=True, name=check.name).start()
    return answer
