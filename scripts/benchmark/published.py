"""The published `realesrgan` package, and ncnn with the package's networks, as contestants."""

import contextlib
import os
import subprocess
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from scripts.benchmark.contestant import Absent, Entry
from scripts.benchmark.flops import count_gflop
from scripts.benchmark.ours import find_spec
from scripts.benchmark.pictures import Pixels, make_pixels
from tests.reference.standins import PublishedRealEsrgan, import_published
from upscaled_models.registry import ModelSpec
from upscaled_models.store import ModelStore
from upscaled_models.weights import load_network

TILE_PX = 400
TILE_PAD_PX = 10
TRACED_PX = 32
"""Side of the picture by which a network is traced; the layers that are found take any size."""


class Package:
    """`RealESRGANer`: float32 (float16 on CUDA), tiles of 400 px, 10 px around them.

    Its `pre_pad` is 0, as its own command has it: anything else would be more work.
    """

    def __init__(self, entry: Entry) -> None:
        published, spec = _import(), find_spec(entry)
        network = load_published(published, spec, entry)
        self.gflop = count_gflop(network, entry.height_px, entry.width_px)
        self.label = f"realesrgan float{32 if entry.device == 'cpu' else 16}"
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "weights.pth"
            torch.save({"params": network.state_dict()}, file)
            self._tool = published.RealESRGANer(
                scale=spec.native_scale,
                model_path=str(file),
                model=network,
                tile=TILE_PX,
                tile_pad=TILE_PAD_PX,
                pre_pad=0,
                half=entry.device != "cpu",
                device=torch.device(entry.device),
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
        network = load_published(_import(), find_spec(entry), entry)
        self.gflop = count_gflop(network, entry.height_px, entry.width_px)
        self._net = open_ncnn(network, is_bfloat16=True)
        planes = make_pixels(entry.height_px, entry.width_px).transpose(2, 0, 1)
        self._levels = np.ascontiguousarray(planes, np.float32) / np.float32(255)

    def run(self) -> Pixels:
        levels = run_ncnn(self._net, self._levels)
        pixels: Pixels = np.rint(levels.clip(0, 1) * 255).astype(np.uint8)
        return pixels.transpose(1, 2, 0)


def load_published(published: PublishedRealEsrgan, spec: ModelSpec, entry: Entry) -> nn.Module:
    """Build the package's own network of a model, with the model's weights.

    Raises:
        Absent: the package has no network of that family.
    """
    classes = {"rrdb": published.RRDBNet, "srvgg": published.SRVGGNetCompact}
    if spec.family not in classes:
        raise Absent(f"realesrgan has no {spec.family} network")
    network: nn.Module = classes[spec.family](**spec.shape)
    ours = load_network(spec, ModelStore(Path(entry.data_dir) / "models").target(spec))
    network.load_state_dict(ours.state_dict())
    return network.eval()


def open_ncnn(network: nn.Module, *, is_bfloat16: bool = False) -> Any:  # noqa: ANN401  (no types)
    """Convert a network by ncnn's own converter, pnnx, and open it.

    Raises:
        Absent: the two are not installed.
    """
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


def _import() -> PublishedRealEsrgan:
    try:
        return import_published()
    except ImportError as error:
        raise Absent(f"tests/reference/requirements.lock is not installed: {error}") from error
