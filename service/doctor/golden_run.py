"""A process of its own that does what a worker does with a picture, and reports as it goes.

Started as `python -m service.doctor.golden_run`, the settings as JSON on standard input. Whatever
ends it, an instruction that the processor lacks or memory that is not there, the doctor lives. It
has no network where the system lets it go without.
"""

import os
import sys
import time
from typing import TYPE_CHECKING, Final

from service.config import Settings
from service.doctor.isolation import Watch
from service.doctor.report import Connections, Made, Opened, Platform, Report, Trouble

if TYPE_CHECKING:
    from service.decoding.decoder import Decoder
    from service.engine.engine import Engine
    from service.upscale.scheduler import Scheduler

SCALES: Final = (2, 4)


class _Stop(Exception):
    """It goes no further; what happened is told."""


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
        _say(out, connections)


def _run(settings: Settings, out: int) -> None:
    try:
        _say(out, _describe_platform())
        engines = {scale: _open(settings, scale, out) for scale in SCALES}
    except Exception as error:
        raise _told(out, "engine", error) from error
    from service.decoding.decoder import Decoder
    from service.upscale.scheduler import Scheduler

    try:
        with Scheduler() as scheduler, Decoder(settings.formats, processes=1) as decoder:
            for scale, engine in engines.items():
                _say(out, _make(scale, engine, settings, scheduler, decoder))
    except Exception as error:
        raise _told(out, "golden picture", error) from error


def _describe_platform() -> Platform:
    import torch

    from models.graphs.runtime import import_openvino

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


def _open(settings: Settings, scale: int, out: int) -> "Engine":
    from service.engine.choice import open_known_engine

    started = time.perf_counter()
    engine, is_chosen = open_known_engine(settings, scale)
    opened = Opened(
        scale=scale,
        model=engine.model,
        label=engine.label,
        proof=engine.proof,
        window_px=engine.window_px,
        is_chosen=is_chosen,
        seconds=time.perf_counter() - started,
    )
    _say(out, opened)
    return engine


def _make(
    scale: int, engine: "Engine", settings: Settings, scheduler: "Scheduler", decoder: "Decoder"
) -> Made:
    from service.doctor.golden import JPEG_QUALITY, compare, read_expected, read_source
    from service.image.decode import decode
    from service.upscale.check import is_believable
    from service.upscale.job import run_job

    source = read_source(scale)
    settings = settings.model_copy(update={"jpeg_quality": JPEG_QUALITY})
    with scheduler.open_lane(engine) as lane:
        finished = run_job(source, scale, lane, settings, lambda *_: None, decode=decoder.decode)
    got = decode(finished.data)
    expected = read_expected(engine.model, scale)
    return Made(
        scale=scale,
        model=engine.model,
        psnr_db=None if expected is None else compare(decode(expected), got),
        is_believable=is_believable(decode(source).rgb, got.rgb),
        decode_s=finished.decode_s,
        network_s=finished.network_s,
        encode_s=finished.encode_s,
    )


def _told(out: int, step: str, error: Exception) -> _Stop:
    _say(out, Trouble(step=step, text=str(error) or type(error).__name__))
    return _Stop()


def _say(out: int, report: Report) -> None:
    os.write(out, report.model_dump_json().encode() + b"\n")


if __name__ == "__main__":
    main()
