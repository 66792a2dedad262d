"""Executors for tests in which pixels do not matter: in this process, without a network."""

import asyncio
import io
import threading
from collections.abc import Mapping
from dataclasses import replace

from PIL import Image

from upscaled.errors import MalformedImage
from upscaled.image.output import OutputSpec
from upscaled.pool.executor import (
    EngineInUse,
    Expectation,
    ModelStats,
    PoolStats,
    UpscaleRequest,
    WorkerState,
    WorkerStats,
)
from upscaled.upscale.model_choice import AutoChoice, Rung
from upscaled.upscale.result import Result, Timings
from upscaled_models.registry import split_strength

TIMINGS = Timings(decode_s=0.002, network_s=0.25, encode_s=0.003, device_s=0.2, queue_s=0.001)
FIGURES = PoolStats(
    waiting=1,
    waiting_most=32,
    running=3,
    running_most=4,
    workers_ready=1,
    workers_wanted=2,
    restarts=5,
    failed_starts=6,
    engines=frozenset({EngineInUse(2, "resize", "pillow nearest", "cpu")}),
    done=WorkerStats(
        models={"resize": ModelStats(batches=2, windows=3, slots=8, trunk_px=900, device_s=0.5)},
        decoder_deaths=7,
        cpu_s=1.5,
    ),
    resident_bytes={0: 1000},
    workers=(
        WorkerState(0, "cpu:0", is_ready=True, is_out=False, in_flight=3, device_s=0.5),
        WorkerState(1, "cpu:1", is_ready=False, is_out=True, in_flight=0, device_s=0),
    ),
    ladders={
        2: (Rung(model="upscaled-x2"),),
        4: (
            Rung(
                model="realesrgan-x4plus",
                tempered_with="upscaled-x4-faithful",
                most_px=240_100,
                most_deep_px=60_000,
            ),
            Rung(model="upscaled-x4", most_px=4_000_000, most_deep_px=1_000_000),
            Rung(model="upscaled-x4-faithful"),
        ),
    },
    seconds_per_px={("upscaled-x4", 4): 1.23456e-6, ("upscaled-x2", 2): 1e-6},
)

CHOICE = AutoChoice(plans={4: "upscaled-x4 0123"}, ladders=dict(FIGURES.ladders))

IDLE = replace(FIGURES, waiting=0, running=0)


class ResizingExecutor:
    """Resizes with Pillow, to the size and format of the output, as the real worker would."""

    def __init__(self) -> None:
        self.requests: list[UpscaleRequest] = []
        self.is_started = self.is_stopped = False
        self.is_available = True
        self.tempered_with = ""
        self.choice = CHOICE
        self.shared: Mapping[int, tuple[Rung, ...]] = {}

    async def start(self) -> None:
        self.is_started = True

    async def stop(self, grace_s: float) -> None:
        self.is_stopped = True

    def is_ready(self) -> bool:
        return self.is_available

    def stats(self) -> PoolStats:
        return FIGURES

    def expect(self, request: UpscaleRequest) -> Expectation:
        return Expectation(0.25, (request.model,) if request.model else ("first", "second"))

    async def own_choice(self) -> AutoChoice:
        return self.choice

    def adopt_ladders(self, ladders: Mapping[int, tuple[Rung, ...]]) -> None:
        self.shared = ladders

    async def upscale(self, source: bytes, request: UpscaleRequest) -> Result:
        self.requests.append(request)
        upscaled = await asyncio.to_thread(resize, source, request.output)
        model, denoise = split_strength(request.model or upscaled.model)
        return replace(upscaled, model=model, denoise=denoise, tempered_with=self.tempered_with)


class IdleExecutor(ResizingExecutor):
    """Has room for jobs."""

    def stats(self) -> PoolStats:
        return IDLE


class SlowExecutor(ResizingExecutor):
    """Takes 1.5 s."""

    seconds = 1.5

    async def upscale(self, source: bytes, request: UpscaleRequest) -> Result:
        await asyncio.sleep(self.seconds)
        return await super().upscale(source, request)


class HeldExecutor(ResizingExecutor):
    """Works until a test says that it may end."""

    def __init__(self) -> None:
        super().__init__()
        self.has_begun = threading.Event()
        self.may_end = threading.Event()

    async def upscale(self, source: bytes, request: UpscaleRequest) -> Result:
        self.has_begun.set()
        await asyncio.to_thread(self.may_end.wait, 60)
        return await super().upscale(source, request)


class LargeExecutor(ResizingExecutor):
    """Gives more than the kernel's buffers of both sides take."""

    size_bytes = 32_000_000

    async def upscale(self, source: bytes, request: UpscaleRequest) -> Result:
        return replace(await super().upscale(source, request), data=bytes(self.size_bytes))


class HangingExecutor(ResizingExecutor):
    """Works until it is cancelled, and records when."""

    def __init__(self) -> None:
        super().__init__()
        self.has_begun = threading.Event()
        self.is_cancelled = threading.Event()

    async def upscale(self, source: bytes, request: UpscaleRequest) -> Result:
        self.has_begun.set()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            self.is_cancelled.set()
            raise
        raise AssertionError("slept too long")


class FailingExecutor(ResizingExecutor):
    """Raises what it was given."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    async def upscale(self, source: bytes, request: UpscaleRequest) -> Result:
        raise self.error


def resize(source: bytes, output: OutputSpec) -> Result:
    try:
        picture = decode(source)
    except (OSError, SyntaxError, ValueError) as error:
        raise MalformedImage(detail=str(error)) from error
    size = (output.width_px, output.height_px)
    picture = picture.resize(size, Image.Resampling.NEAREST)
    data = encode(picture.convert("RGB") if output.format == "JPEG" else picture, output.format)
    return Result(data, output.media_type, *size, "resize", "pillow nearest", TIMINGS)


def decode(source: bytes) -> Image.Image:
    with Image.open(io.BytesIO(source)) as picture:
        has_alpha = "A" in picture.mode or "transparency" in picture.info
        return picture.convert("RGBA" if has_alpha else "RGB")


def encode(picture: Image.Image, format_name: str) -> bytes:
    file = io.BytesIO()
    picture.save(file, format_name)
    return file.getvalue()
