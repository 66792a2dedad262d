"""Check the engines and the golden images, in a process of their own (`golden_run`)."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from pydantic import TypeAdapter

from upscaled.config import Settings
from upscaled.doctor.finding import INSTALL_OR_EXACT, Finding, failure
from upscaled.pool.devices import worker_environment, worker_settings
from upscaled.process.supervision import describe_exit

COMMAND: Final = (sys.executable, "-m", "upscaled.doctor.golden_run")
WITHIN_S: Final = 60.0
ENGINE: Final = "engine"
GOLDEN_IMAGE: Final = "golden picture"
"""Checks of the failures with which a run ends: before and after all engines are open."""

_FINDING: Final = TypeAdapter(Finding)


def check_engines(
    settings: Settings,
    environment: Mapping[str, str],
    command: Sequence[str] = COMMAND,
    within_s: float = WITHIN_S,
) -> list[Finding]:
    """Check the GPU, the engines and the golden images, and that no network was needed.

    Where the process, started as a worker is, dies, what it reported before still counts.
    """
    given = Settings.model_validate(worker_settings(settings)).model_dump_json().encode()
    process = subprocess.Popen(  # noqa: S603  (our own program)
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=worker_environment(settings, environment),
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(given, within_s)
        end = f"ended ({describe_exit(process.returncode)})" if process.returncode else ""
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # a decoder is of its session
        output, errors = process.communicate()
        end = f"did not end within {within_s:.0f} s"
    findings = list(read_findings(output))
    if end and not any(finding.check in (ENGINE, GOLDEN_IMAGE) for finding in findings):
        *_, last_line = ["", *errors.decode(errors="replace").strip().splitlines()]
        are_open = any(finding.check == "engine x4" for finding in findings)
        text = f"its process {end}" + (f": {last_line}" if last_line else "")
        findings.append(failure(GOLDEN_IMAGE if are_open else ENGINE, text, INSTALL_OR_EXACT))
    return findings


def dump_finding(finding: Finding) -> bytes:
    """Return a finding as the line of a run's output."""
    return _FINDING.dump_json(finding) + b"\n"


def read_findings(output: bytes) -> Iterator[Finding]:
    """Read the findings of a run, up to what a dying process left half-written."""
    for line in output.splitlines():
        try:
            yield _FINDING.validate_json(line)
        except ValueError:
            return
