"""Run golden images the whole way through the engines, in a process of its own.

Started as `python -m upscaled.doctor.golden_run`, the settings as JSON on standard input; it writes
a line for each finding as it goes, so that the doctor lives whatever ends it: an instruction that
the processor lacks, or memory that is not there.
"""

import gc
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

from upscaled.config import Settings
from upscaled.doctor import golden as goldens
from upscaled.doctor.engines import ENGINE, GOLDEN_IMAGE, dump_finding
from upscaled.doctor.finding import INSTALL, INSTALL_OR_EXACT, Finding, failure, ok, warning
from upscaled.doctor.isolation import ConnectionRecorder
from upscaled.pool.devices import plan_workers, resolve_devices
from upscaled_models.accuracy import MAX_PSNR_DB

if TYPE_CHECKING:
    from upscaled.upscale.core import Core
    from upscaled.upscale.result import Result
    from upscaled_models.backends.base import Engine, EngineInfo

_NVIDIA: Final = Path("/proc/driver/nvidia/version")


def main() -> None:
    """Report on standard output; libraries' own words go to standard error."""
    gc.disable()  # the process ends before there is much; imports alone make a million objects
    recorder = ConnectionRecorder()
    out = os.dup(1)
    os.dup2(2, 1)
    try:
        settings = Settings.model_validate_json(sys.stdin.buffer.read())
        for finding in _run(settings):
            os.write(out, dump_finding(finding))
    finally:
        connections = describe_connections(
            recorder.targets, recorder.count_lost_packets(), is_isolated=recorder.is_isolated
        )
        os.write(out, dump_finding(connections))


def _run(settings: Settings) -> Iterator[Finding]:
    from upscaled_models.backends.device import count_gpus

    check = ENGINE
    try:
        yield from describe_devices(settings)
        workers = plan_workers(resolve_devices(settings, count_gpus()))
        yield describe_workers(workers)
        settings = workers[0]
        with ExitStack() as stack:
            core, findings = _open(stack, settings)
            yield from findings
            check = GOLDEN_IMAGE
            for scale, ladder in core.ladders.items():
                for rung in ladder:
                    yield _make(scale, rung.model, core)
    except Exception as error:  # noqa: BLE001  (it ends the run, and is reported)
        text = str(error) or type(error).__name__
        yield failure(check, text, advise(text))


def describe_devices(settings: Settings) -> Iterator[Finding]:
    """Describe the GPUs, and OpenVINO where it is missed."""
    import torch

    from upscaled_models.backends.openvino.runtime import import_openvino

    gpus = [torch.cuda.get_device_properties(each) for each in range(torch.cuda.device_count())]
    names = [f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB" for gpu in gpus]
    yield describe_gpus(names, torch.__version__, torch.version.cuda or "", settings.device)
    if not gpus and settings.precision != "exact":
        try:
            import_openvino()
        except ImportError as error:
            found = f"cannot be used, and is several times as fast: {error}"
            yield warning("OpenVINO", found, INSTALL)


def describe_workers(workers: Sequence[Settings]) -> Finding:
    """Describe the workers of a start, by their devices; the checks after it use the first one."""
    from upscaled.upscale.engines import choose_device

    each = [
        f"{settings.device} (threads {choose_device(settings).threads})" for settings in workers
    ]
    return ok("workers", f"{len(workers)}: {', '.join(each)}")


def describe_gpus(names: list[str], torch: str, cuda: str, device: str) -> Finding:
    """Describe the GPUs that torch sees, by `names` with their memory.

    torch, cuda: its version, and what it was built for; "" for none. device: the setting.
    """
    if names:
        found = f"{'; '.join(names)} (CUDA {cuda})"
        if device.startswith("cpu"):
            return warning("GPU", f"{found}, not used", "set UPSCALED_DEVICE=auto to use it")
        return ok("GPU", found)
    if not _NVIDIA.exists():
        return ok("GPU", "none: the CPU computes")
    return warning(
        "GPU",
        "an NVIDIA driver is here, but torch sees no GPU: "
        f"torch {torch} is built for {cuda or 'CPUs only'}",
        "install torch's CUDA build (docs/gpu.md); in a container, pass the GPU in",
    )


def _open(stack: ExitStack, settings: Settings) -> "tuple[Core, list[Finding]]":
    from upscaled.upscale.engines import find_choice, open_known_model
    from upscaled.upscale.ladder import plan_ladder
    from upscaled.upscale.opening import open_core
    from upscaled.upscale.speed import read_speed

    golden = settings.model_copy(update={"jpeg_quality": goldens.JPEG_QUALITY, "temper": "auto"})
    chosen: dict[str, tuple[EngineInfo, bool]] = {}

    def open_engine(model: str) -> "Engine":
        engine, is_chosen = open_known_model(golden, model)
        chosen[model] = (engine.info, is_chosen)
        return engine

    core = stack.enter_context(
        open_core(golden, open_engine=open_engine, decoders=1, measures=False)
    )
    findings = []
    for scale, ladder in core.ladders.items():
        for rung in ladder:
            info, is_chosen = chosen[rung.model]
            choice = find_choice(golden, rung.model) if is_chosen else None
            unsettled = choice.unsettled if choice else ""
            findings.append(describe_engine(scale, info, unsettled, is_chosen=is_chosen))
    for scale in core.ladders:
        plan = plan_ladder(settings, scale)
        found = ((spec.name, read_speed(settings, spec)) for spec in plan.bounded)
        ladder = plan.build({name: speed for name, speed in found if speed is not None})
        findings.append(ok(f"models x{scale}", "; ".join(rung.describe() for rung in ladder)))
    return core, findings


def describe_engine(scale: int, info: "EngineInfo", unsettled: str, *, is_chosen: bool) -> Finding:
    """Describe an engine that is open.

    unsettled: why its choice is to be measured again. is_chosen: a start would open just this one.
    """
    check = f"engine x{scale}"
    found = f"{info.model} by {info.label}, windows of {info.window_px} px"
    if not is_chosen:
        return warning(
            check,
            f"{found}: nothing is measured yet on this machine",
            f"`upscaled tune {info.model}`, or starting `upscaled serve` once, measures what is "
            "fastest, proves it and keeps it",
        )
    if unsettled:
        return warning(
            check,
            f"{found}; not settled: {unsettled}",
            f"`upscaled tune {info.model}` measures now; a service does so in an idle minute",
        )
    return ok(check, f"{found}; {info.proof or 'the reference for all others'}")


def _make(scale: int, model: str, core: "Core") -> Finding:
    """Upscale a golden image with a model alone: tempering is off for one that is named."""
    from upscaled.image.decode import decode_file
    from upscaled.upscale.post_process.steps import is_plausible

    source = goldens.read_source(scale)
    result = core.upscale(source, scale, model=model)
    got = decode_file(result.data)
    expected = goldens.read_expected(result.model, scale, is_tempered=bool(result.tempered_with))
    psnr_db = None if expected is None else goldens.compare(decode_file(expected), got)
    return describe_result(
        scale, result, psnr_db, is_plausible=is_plausible(decode_file(source).rgb, got.rgb)
    )


def describe_result(
    scale: int, result: "Result", psnr_db: float | None, *, is_plausible: bool
) -> Finding:
    """Describe the result of a golden image.

    psnr_db: against what it must be, None where that is not known. is_plausible: of the source's
    colours, and its size.
    """
    check = f"golden x{scale}"
    least_db = goldens.find_least_psnr_db(result.model)
    _, *stages = result.timings.stages()
    times = ", ".join(f"{stage} {seconds * 1e3:.0f} ms" for stage, seconds in stages)
    if not is_plausible:
        found = f"{result.model} made a result of another size or other colours"
    elif psnr_db is None:
        return ok(check, f"{result.model} keeps its size and colours; {times}")
    else:
        likeness = "exactly" if psnr_db >= MAX_PSNR_DB else f"{psnr_db:.1f} dB to"
        found = f"{likeness} what {result.model} must make of it"
        if psnr_db >= least_db:
            return ok(check, f"{found}; {times}")
    return failure(
        check,
        f"{found}, and {least_db:.0f} dB is the least",
        "set UPSCALED_PRECISION=exact; if that does not help, memory or device may be faulty",
    )


def describe_connections(targets: list[str], lost_packets: int, *, is_isolated: bool) -> Finding:
    """Describe what tried to connect to another machine, as `ConnectionRecorder` saw it."""
    where = (
        "in a process without a network"
        if is_isolated
        else "by what Python was asked for (network namespaces are not allowed here)"
    )
    if not targets and not lost_packets:
        return ok("no network", f"nothing tried to connect, {where}")
    packets = f"{lost_packets} packets from outside Python"
    return warning(
        "no network",
        f"tried to reach {', '.join(sorted(set(targets))) or packets}, {where}",
        "none of it is upscaled's own: look for sitecustomize, PYTHONPATH or LD_PRELOAD",
    )


def advise(text: str) -> str:
    """Return what to do about the error that ended the run."""
    if "UPSCALED_" in text:
        return "correct the setting; `upscaled config` explains each"
    if "No module named" in text or "cannot open shared object" in text:
        return INSTALL
    return INSTALL_OR_EXACT


if __name__ == "__main__":
    main()
