"""An executor whose results differ from their sources at a glance: every colour inverted."""

import asyncio
import threading
from dataclasses import replace

from PIL import Image, ImageChops

from tests.service.api.executors import TIMINGS, ResizingExecutor, decode, encode
from upscaled.image.output import OutputSpec
from upscaled.pool.executor import UpscaleRequest
from upscaled.upscale.result import Result

TILES = 3


class PaintingExecutor(ResizingExecutor):
    """`is_held`: each tile then waits for a `go_on`. `has_been_cancelled` is about the last one."""

    def __init__(self) -> None:
        super().__init__()
        self.is_held = False
        self.has_been_cancelled = threading.Event()
        self._may_go_on = threading.Semaphore(0)

    async def upscale(self, source: bytes, request: UpscaleRequest) -> Result:
        self.requests.append(request)
        self.has_been_cancelled.clear()
        try:
            for done in range(TILES + 1):
                if request.on_tile:
                    request.on_tile(done, TILES)
                while self.is_held and not self._may_go_on.acquire(blocking=False):
                    await asyncio.sleep(0.01)
            painted = await asyncio.to_thread(paint, source, request.output)
            model = request.model or painted.model
            return replace(painted, model=model, tempered_with=self.tempered_with)
        except asyncio.CancelledError:
            self.has_been_cancelled.set()
            raise

    def go_on(self) -> None:
        self._may_go_on.release()


def paint(source: bytes, output: OutputSpec) -> Result:
    picture = decode(source)
    size = (output.width_px, output.height_px)
    large = picture.resize(size, Image.Resampling.NEAREST)
    inverted = ImageChops.invert(large.convert("RGB"))
    if large.mode == "RGBA" and output.format != "JPEG":
        inverted.putalpha(large.getchannel("A"))
    data = encode(inverted, output.format)
    return Result(data, output.media_type, *size, "painted", "", TIMINGS)
