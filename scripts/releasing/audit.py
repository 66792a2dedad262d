"""Audit of the locked packages: which of them have known vulnerabilities."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OSV_URL = "https://api.osv.dev/v1/query"
LOCKS = tuple(
    f"requirements{part}.lock"
    for part in ("", "-torch", "-cuda", "-weights", "-extras", "-cluster")
)
"""What users install; what only developers do is left out."""


class NotReachable(RuntimeError):
    """The database of vulnerabilities did not answer; the text is the last line of the reason."""


@dataclass(frozen=True, slots=True)
class Audit:
    """Answer of the database. report: pip-audit's, as JSON has it."""

    packages: int
    vulnerable: tuple[str, ...]
    report: dict[str, Any]


def audit_locks(root: Path, accepted: Sequence[str] = (), url: str = OSV_URL) -> Audit:
    """Ask an OSV database for every package that the locks under `root` pin.

    Args:
        accepted: identifiers of vulnerabilities that do not count, for a reason SECURITY.md gives.
        url: the address of the database's query.

    Raises:
        NotReachable: it did not answer.
    """
    command = [sys.executable, "-m", "pip_audit", "--no-deps", "--disable-pip"]
    command += ["--progress-spinner", "off", "--vulnerability-service", "osv", "--osv-url", url]
    for lock in LOCKS:
        command += ["--requirement", str(root / lock)]
    for identifier in accepted:
        command += ["--ignore-vuln", identifier]
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder, "audit.json")
        command += ["--format", "json", "--output", str(answer)]
        finished = subprocess.run(command, capture_output=True, text=True)
        # Its status is 1 for what it found and for what failed; only an answer is written.
        if not answer.is_file():
            raise NotReachable((finished.stderr.strip().splitlines() or ["no reason given"])[-1])
        return _read_report(json.loads(answer.read_text()))


def _read_report(report: dict[str, Any]) -> Audit:
    audited = [each for each in report["dependencies"] if "skip_reason" not in each]
    vulnerable = [
        f"{each['name']} {each['version']}: {', '.join(found['id'] for found in each['vulns'])}"
        for each in audited
        if each["vulns"]
    ]
    return Audit(len(audited), tuple(vulnerable), report)
