"""Check the clock, by which results, credits and certificates expire."""

import os
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import upscaled
from upscaled.config import Settings
from upscaled.doctor.finding import Finding, failure, ok, warning

CHECK: Final = "clock"
WARN_DRIFT_S: Final = 5.0
FAIL_DRIFT_S: Final = 300.0

_ADVICE: Final = "set the clock, and keep it by NTP (`timedatectl set-ntp true`)"
_RELEASED: Final = datetime(2026, 11, 22, tzinfo=UTC).timestamp()
_DAY_S: Final = 86_400.0


def check_clock(settings: Settings) -> list[Finding]:
    """Check that the clock can be right, and agrees with the disk's (another machine's, on NFS)."""
    now = time.time()
    shown = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    earliest = max(_RELEASED, Path(upscaled.__file__).stat().st_mtime)
    if now < earliest - _DAY_S:  # archives hold times of day without a zone
        made = datetime.fromtimestamp(earliest, UTC).strftime("%Y-%m-%d")
        return [failure(CHECK, f"{shown} is before this installation was made ({made})", _ADVICE)]
    found = [ok(CHECK, shown)]
    drift_s = _measure_disk_drift_s(settings.data_dir)
    if drift_s is not None and abs(drift_s) > WARN_DRIFT_S:
        found.append(describe_drift("disk clock", drift_s))
    return found


def describe_drift(check: str, drift_s: float) -> Finding:
    """Describe how far another clock is ahead of this machine's."""
    ahead = "ahead of" if drift_s > 0 else "behind"
    found = f"{abs(drift_s):.1f} s {ahead} this machine's"
    if abs(drift_s) > FAIL_DRIFT_S:
        return failure(check, found, _ADVICE)
    return warning(check, found, _ADVICE) if abs(drift_s) > WARN_DRIFT_S else ok(check, found)


def _measure_disk_drift_s(folder: Path) -> float | None:
    """Measure the drift by a file's time; None where none can be made, as another check reports."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            before = time.time()
            file.write(b"\0")
            file.flush()
            return os.fstat(file.fileno()).st_mtime - (before + time.time()) / 2
    except OSError:
        return None
