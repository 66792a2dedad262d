"""The engines and the golden pictures: runs them in a process of their own, judges what it says."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from upscaled.config import Settings
from upscaled.doctor.finding import Finding, failure, ok, warning
from upscaled.doctor.golden import MAX_PSNR_DB, find_least_psnr_db
from upscaled.doctor.report import (
    Connections,
    Ladders,
    Made,
    Opened,
    Platform,
    Report,
    Trouble,
    read_report,
)
from upscaled.pool.worker_process import worker_environment, worker_settings

COMMAND: Final = (sys.executable, "-m", "upscaled.doctor.golden_run")
WITHIN_S: Final = 60.0
_NVIDIA: Final = Path("/proc/driver/nvidia/version")
_INSTALL: Final = (
    "install upscaled again (`pip install -r requirements-torch.lock` and `pip install "
    "--require-hashes -r requirements.lock`)"
)
_INSTALL_OR_EXACT: Final = (
    f"{_INSTALL}, or keep to plain torch by UPSCALED_PRECISION=exact; memory that ends shows in "
    "the kernel's log (`dmesg`)"
)


@dataclass(frozen=True, slots=True)
class Run:
    """How a golden run ended. ending: empty where it ended by itself; last_words: its last line on
    standard error.
    """

    reports: Sequence[Report]
    ending: str
    last_words: str


def check_engines(
    settings: Settings,
    environment: Mapping[str, str],
    command: Sequence[str] = COMMAND,
    within_s: float = WITHIN_S,
) -> list[Finding]:
    """Findings on the GPU, the engines, the golden pictures, and whether a network was wanted."""
    return list(judge_run(run_golden(settings, environment, command, within_s), settings))


def run_golden(
    settings: Settings, environment: Mapping[str, str], command: Sequence[str], within_s: float
) -> Run:
    """Start the process as a worker is started, and collect what it says."""
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
        ending = _describe_end(process.returncode)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # a decoder is of its session
        output, errors = process.communicate()
        ending = f"did not end within {within_s:.0f} s"
    lines = errors.decode(errors="replace").strip().splitlines()
    return Run(tuple(_read(output)), ending, lines[-1] if lines else "")


def judge_run(run: Run, settings: Settings) -> Iterator[Finding]:
    """What the reports mean, in the order in which they came."""
    step = "engine"
    is_told = False
    for report in run.reports:
        match report:
            case Platform():
                yield from _judge_platform(report, settings)
            case Opened():
                yield _judge_opened(report)
                step = "golden picture" if report.scale == 4 else step
            case Ladders():
                yield from _describe_ladders(report)
            case Made():
                yield _judge_made(report)
            case Trouble():
                is_told = True
                yield failure(report.step, report.text, _advise(report))
            case Connections():
                yield _judge_connections(report)
    if run.ending and not is_told:
        words = f": {run.last_words}" if run.last_words else ""
        yield failure(step, f"its process {run.ending}{words}", _INSTALL_OR_EXACT)


def _judge_platform(platform: Platform, settings: Settings) -> Iterator[Finding]:
    if platform.gpus:
        found = f"{'; '.join(platform.gpus)} (CUDA {platform.cuda})"
        if settings.device == "cpu":
            yield warning("GPU", f"{found}, not used", "set UPSCALED_DEVICE=auto to use it")
        else:
            yield ok("GPU", found)
    elif _NVIDIA.exists():
        built = f"torch {platform.torch} is built for {platform.cuda or 'CPUs only'}"
        yield warning(
            "GPU",
            f"an NVIDIA driver is here, but torch sees no GPU: {built}",
            "install torch's CUDA build (docs/gpu.md); in a container, pass the GPU in",
        )
    else:
        yield ok("GPU", "none: the CPU computes")
    if not platform.is_openvino_usable and not platform.gpus and settings.precision != "exact":
        yield warning(
            "OpenVINO",
            f"cannot be used, and is several times as fast: {platform.openvino}",
            _INSTALL,
        )


def _judge_opened(opened: Opened) -> Finding:
    check = f"engine x{opened.scale}"
    found = f"{opened.model} by {opened.label}, windows of {opened.window_px} px"
    if not opened.is_chosen:
        return warning(
            check,
            f"{found}: nothing is measured yet on this machine",
            f"`upscaled tune {opened.model}`, or starting `upscaled serve` once, measures what is "
            "fastest, proves it and keeps it",
        )
    if opened.unsettled:
        return warning(
            check,
            f"{found}; not settled: {opened.unsettled}",
            f"`upscaled tune {opened.model}` measures now; a service does so in an idle minute",
        )
    return ok(check, f"{found}; {opened.proof or 'the measure of all others'}")


def _describe_ladders(report: Ladders) -> Iterator[Finding]:
    for scale, ladder in report.ladders.items():
        yield ok(f"models x{scale}", "; ".join(rung.describe() for rung in ladder))


def _judge_made(made: Made) -> Finding:
    check = f"golden x{made.scale}"
    least_db = find_least_psnr_db(made.model)
    times = (
        f"decode {made.decode_s * 1e3:.0f} ms, network {made.network_s * 1e3:.0f} ms, "
        f"encode {made.encode_s * 1e3:.0f} ms"
    )
    if not made.is_plausible:
        found = f"{made.model} made another picture of it"
    elif made.psnr_db is None:
        return ok(check, f"{made.model} keeps its size and colours; {times}")
    else:
        found = f"{_describe_psnr(made.psnr_db)} what {made.model} must make of it"
        if made.psnr_db >= least_db:
            return ok(check, f"{found}; {times}")
    return failure(
        check,
        f"{found}, and {least_db:.0f} dB is the least",
        "set UPSCALED_PRECISION=exact; if that does not help, doubt the memory or the device",
    )


def _describe_psnr(psnr_db: float) -> str:
    return "exactly" if psnr_db >= MAX_PSNR_DB else f"{psnr_db:.1f} dB to"


def _judge_connections(connections: Connections) -> Finding:
    where = (
        "in a process without a network"
        if connections.is_isolated
        else "by what Python was asked for (network namespaces are not allowed here)"
    )
    tried = sorted(set(connections.targets))
    if not tried and not connections.lost_packets:
        return ok("no network", f"nothing tried to connect, {where}")
    packets = f"{connections.lost_packets} packets from outside Python"
    return warning(
        "no network",
        f"tried to reach {', '.join(tried) or packets}, {where}",
        "none of it is upscaled's own: look for sitecustomize, PYTHONPATH or LD_PRELOAD",
    )


def _advise(trouble: Trouble) -> str:
    if "UPSCALED_" in trouble.text:
        return "correct the setting; `upscaled config` explains each"
    if "No module named" in trouble.text or "cannot open shared object" in trouble.text:
        return _INSTALL
    return _INSTALL_OR_EXACT


def _describe_end(code: int) -> str:
    if code == 0:
        return ""
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with status {code}"


def _read(output: bytes) -> Iterator[Report]:
    """Up to what a dying process left half-written."""
    for line in output.splitlines():
        try:
            yield read_report(line)
        except ValueError:
            return
