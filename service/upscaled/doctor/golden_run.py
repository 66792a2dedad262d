"""A process of its own that does what a worker does with a picture, and reports as it goes.

Started as `python -m upscaled.doctor.golden_run`, the settings as JSON on standard input. Whatever
ends it, an instruction that the processor lacks or memory that is not there, the doctor lives. It
has no network where the system lets it go without.
"""

import os
import sys
import time
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

from upscaled.config import Settings
from upscaled.doctor.golden import JPEG_QUALITY, compare, read_expected, read_source
from upscaled.doctor.isolation import Watch
from upscaled.doctor.report import (
    Connections,
    Ladders,
    Made,
    Opened,
    Platform,
    Report,
    Trouble,
)

if TYPE_CHECKING:
    from upscaled.upscale.core import Core
    from upscaled_models.backends.base import Engine


class _Stop(Exception):
    """The run ends here; the reason was reported."""


def main() -> None:
    """Report on standard output; libraries' own words go to standard error."""
    watch = Watch()
    out = os.dup(1)
    os.dup2(2, 1)
    try:
        settings = Settings.model_validate_json(sys.stdin.buffer.read())
        _run(settings, out)
    except _Stop:
        pass
    finally:
        connections = Connections(
            is_isolated=watch.is_isolated,
            targets=watch.targets,
            lost_packets=watch.count_lost_packets(),
        )
        _report(out, connections)


def _run(settings: Settings, out: int) -> None:
    with ExitStack() as stack:
        try:
            _report(out, _describe_platform())
            upscaler = _open(stack, settings, out)
        except Exception as error:
            raise _reported(out, "engine", error) from error
        try:
            for scale, ladder in upscaler.ladders.items():
                for rung in ladder:
                    _report(out, _make(scale, rung.model, upscaler))
        except Exception as error:
            raise _reported(out, "golden picture", error) from error


def _describe_platform() -> Platform:
    import torch

    from upscaled_models.backends.openvino.runtime import import_openvino

    try:
        openvino, is_usable = str(import_openvino().__version__), True
    except ImportError as error:
        openvino, is_usable = str(error), False
    gpus = [torch.cuda.get_device_properties(each) for each in range(torch.cuda.device_count())]
    return Platform(
        torch=torch.__version__,
        cuda=torch.version.cuda or "",
        openvino=openvino,
        is_openvino_usable=is_usable,
        gpus=[f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB" for gpu in gpus],
    )


def _open(stack: ExitStack, settings: Settings, out: int) -> "Core":
    from upscaled.upscale.core import open_core
    from upscaled.upscale.ladder import find_ladder
    from upscaled.upscale.speed import read_speed

    golden = settings.model_copy(update={"jpeg_quality": JPEG_QUALITY, "temper": "auto"})
    opened: dict[str, Opened] = {}

    def open_engine(model: str) -> "Engine":
        engine, opened[model] = _open_engine(golden, model)
        return engine

    upscaler = stack.enter_context(
        open_core(golden, open_engine=open_engine, decoders=1, measures=False)
    )
    for scale, ladder in upscaler.ladders.items():
        for rung in ladder:
            _report(out, opened[rung.model].model_copy(update={"scale": scale}))
    ladders = {
        scale: list(find_ladder(settings, scale, partial(read_speed, settings)))
        for scale in upscaler.ladders
    }
    _report(out, Ladders(ladders=ladders))
    return upscaler


def _open_engine(settings: Settings, model: str) -> "tuple[Engine, Opened]":
    from upscaled.upscale.engines import find_unsettled, open_known_model

    started = time.perf_counter()
    engine, is_chosen = open_known_model(settings, model)
    return engine, Opened(
        scale=engine.info.spec.native_scale,
        model=engine.info.model,
        label=engine.info.label,
        proof=engine.info.proof,
        window_px=engine.info.window_px,
        is_chosen=is_chosen,
        unsettled=find_unsettled(settings, model) if is_chosen else "",
        seconds=time.perf_counter() - started,
    )


def _make(scale: int, model: str, upscaler: "Core") -> Made:
    """What a model alone makes of a golden picture: tempering is off for one that is named."""
    from upscaled.image.decode import decode_file
    from upscaled.upscale.post_process.sanity_check import is_plausible

    source = read_source(scale)
    result = upscaler.upscale(source, scale, model=model)
    got = decode_file(result.data)
    expected = read_expected(result.model, scale, is_tempered=bool(result.tempered_with))
    return Made(
        scale=scale,
        model=result.model,
        psnr_db=None if expected is None else compare(decode_file(expected), got),
        is_plausible=is_plausible(decode_file(source).rgb, got.rgb),
        decode_s=result.timings.decode_s,
        network_s=result.timings.network_s,
        encode_s=result.timings.encode_s,
    )


def _reported(out: int, step: str, error: Exception) -> _Stop:
    _report(out, Trouble(step=step, text=str(error) or type(error).__name__))
    return _Stop()


def _report(out: int, report: Report) -> None:
    os.write(out, report.model_dump_json().encode() + b"\n")


if __name__ == "__main__":
    main()
