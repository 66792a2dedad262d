"""The other contestants: the published `realesrgan` package, ncnn, and the matrix product."""

import contextlib
import os
import subprocess
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import get_num_threads, nn
from torch.utils.benchmark import Timer

from scripts.benchmark.contestant import Absent, Entry
from scripts.benchmark.ours import count_gflop, find_spec
from scripts.benchmark.pictures import Pixels, make_pixels
from tests.reference.standins import PublishedRealEsrgan, import_published
from upscaled_models.store import ModelStore
from upscaled_models.weights import load_network

OPTIONS = {"tile": 400, "tile_pad": 10, "pre_pad": 0}
"""Of the package, as its own command has them; `pre_pad` would be more work."""
TRACED_PX = 32
"""Side of the picture by which a network is traced; the layers that are found take any size."""
SIDES = {"cpu": (1024, 2048, 4096), "cuda": (4096, 8192, 16384)}
TRIALS = 3
RUN_S = 0.3


class Package:
    """`RealESRGANer`: float32 (float16 on CUDA), tiles of 400 px, 10 px around them."""

    def __init__(self, entry: Entry) -> None:
        published, network = load_published(entry)
        self.gflop = count_gflop(network, entry)
        is_half, scale = entry.device != "cpu", find_spec(entry).native_scale
        self.label = f"realesrgan float{16 if is_half else 32}"
        with tempfile.TemporaryDirectory() as folder:
            file, device = f"{folder}/weights.pth", torch.device(entry.device)
            torch.save({"params": network.state_dict()}, file)
            self._tool = published.RealESRGANer(
                scale, file, model=network, half=is_half, device=device, **OPTIONS
            )
        self._bgr = np.ascontiguousarray(make_pixels(entry.height_px, entry.width_px)[..., ::-1])

    def run(self) -> Pixels:
        with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
            bgr, _mode = self._tool.enhance(self._bgr)  # prints each tile
        rgb: Pixels = bgr[..., ::-1]
        return rgb


class Ncnn:
    """The whole picture at once, without halos; bfloat16 storage, its fastest here."""

    label = "ncnn bfloat16"

    def __init__(self, entry: Entry) -> None:
        if entry.device != "cpu":
            raise Absent("ncnn runs on CUDA devices through Vulkan only")
        _, network = load_published(entry)
        self.gflop = count_gflop(network, entry)
        self._net = open_ncnn(network, is_bfloat16=True)
        planes = make_pixels(entry.height_px, entry.width_px).transpose(2, 0, 1)
        self._levels = np.ascontiguousarray(planes, np.float32) / np.float32(255)

    def run(self) -> Pixels:
        levels = run_ncnn(self._net, self._levels)
        pixels: Pixels = np.rint(levels.clip(0, 1) * 255).astype(np.uint8)
        return pixels.transpose(1, 2, 0)


class Matmul:
    """Square matrix products, the most that any convolution could reach, for a third of a second.

    The size is the fastest of several. `entry.precision` is torch's name of the type; of `int8` the
    sums are int32. One that is not tuned has one small size and a thirtieth of the time, for tests.
    """

    def __init__(self, entry: Entry) -> None:
        self._device = torch.device(entry.device)
        self._dtype: torch.dtype = getattr(torch, entry.precision)
        sides, run_s = (SIDES[entry.device], RUN_S) if entry.is_tuned else ((256,), RUN_S / 30)
        products = {side: self._make(side) for side in sides}
        seconds = {side: self._time(product) for side, product in products.items()}
        side = max(sides, key=lambda side: side**3 / seconds[side])
        self._product = products[side]
        self._count = max(1, round(run_s / seconds[side]))
        self.gflop = 2 * side**3 * self._count / 1e9
        self.label = f"product of {side}x{side} {entry.precision}"

    def run(self) -> None:
        for _ in range(self._count):
            self._product()
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def _make(self, side: int) -> Callable[[], torch.Tensor]:
        shape = (2, side, side)
        if self._dtype == torch.int8:
            one, other = torch.randint(-127, 128, shape, dtype=torch.int8, device=self._device)
            other = other.t().contiguous().t()  # the layout that every backend takes
            return lambda: torch._int_mm(one, other)
        one, other = torch.randn(shape, device=self._device).to(self._dtype)
        return lambda: one @ other

    def _time(self, product: Callable[[], torch.Tensor]) -> float:
        """Return the mean seconds of several, after two that are not counted."""
        timer = Timer("product()", globals={"product": product}, num_threads=get_num_threads())
        try:
            return timer.timeit(TRIALS).mean
        except RuntimeError as error:
            raise Absent(f"no matrix product of {self._dtype} here: {error}") from error


def load_published(entry: Entry) -> tuple[PublishedRealEsrgan, nn.Module]:
    """Build the package's own network of a model, with the model's weights, or raise `Absent`."""
    try:
        published = import_published()
    except ImportError as error:
        raise Absent(f"tests/reference/requirements.lock is not installed: {error}") from error
    classes = {"rrdb": published.RRDBNet, "srvgg": published.SRVGGNetCompact}
    spec = find_spec(entry)
    if spec.family not in classes:
        raise Absent(f"realesrgan has no {spec.family} network")
    network: nn.Module = classes[spec.family](**spec.shape)
    ours = load_network(spec, ModelStore(Path(entry.data_dir) / "models").target(spec))
    network.load_state_dict(ours.state_dict())
    return published, network.eval()


def open_ncnn(network: nn.Module, *, is_bfloat16: bool = False) -> Any:  # noqa: ANN401  (no types)
    """Convert a network by ncnn's own converter, pnnx, and open it; `Absent` without the two."""
    try:
        import ncnn  # type: ignore[import-not-found, import-untyped, unused-ignore]
        import pnnx  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError as error:
        raise Absent(f"ncnn is not installed: {error}") from error
    net = ncnn.Net()
    net.opt.use_bf16_storage = is_bfloat16
    with tempfile.TemporaryDirectory() as folder:
        picture = torch.zeros(1, 3, TRACED_PX, TRACED_PX)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # TorchScript, which pnnx reads
            traced: Any = torch.jit.trace(network, picture, check_trace=False)  # type: ignore[no-untyped-call]
            traced.save(f"{folder}/net.pt")
        shape = f"inputshape=[1,3,{TRACED_PX},{TRACED_PX}]"
        command = [pnnx.EXEC_PATH, "net.pt", shape, "fp16=0"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        net.load_param(f"{folder}/net.ncnn.param")
        net.load_model(f"{folder}/net.ncnn.bin")
    return net


def run_ncnn(net: Any, levels: NDArray[np.float32]) -> NDArray[np.float32]:  # noqa: ANN401
    """Run a network that ncnn has opened on `[3, height, width]` in float32."""
    import ncnn  # type: ignore[import-not-found, import-untyped, unused-ignore]

    extractor = net.create_extractor()
    extractor.input("in0", ncnn.Mat(levels))
    status, result = extractor.extract("out0")
    if status != 0:
        raise RuntimeError(f"ncnn answers {status}")
    return np.array(result)
