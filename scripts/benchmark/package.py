"""The published `realesrgan` package as it ships, as a contestant."""

import contextlib
import os
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import torch

from scripts.benchmark.contestant import Absent, Entry, peak_of_cuda_mib
from scripts.benchmark.flops import Shape, count_gflop
from scripts.benchmark.pictures import Pixels, make_pixels
from tests.reference.standins import PublishedRealEsrgan, import_published
from upscaled_models.store import ModelStore
from upscaled_models.weights import load_network

TILE_PX = 400
TILE_PAD_PX = 10


class Package:
    """`RealESRGANer`: float32 (float16 on CUDA), tiles of 400 px, 10 px around them.

    Its `pre_pad` is 0, as its own command has it: anything else would be more work.
    """

    def __init__(self, entry: Entry) -> None:
        store = ModelStore(Path(entry.data_dir) / "models")
        spec = store.find(entry.model)
        self._network = load_network(spec, store.target(spec))
        self._device = entry.device
        self._windows: Counter[Shape] = Counter()
        published = _import()
        kinds = {"rrdb": published.RRDBNet, "srvgg": published.SRVGGNetCompact}
        if spec.family not in kinds:
            raise Absent(f"realesrgan has no {spec.family} network")
        if entry.threads:
            torch.set_num_threads(entry.threads)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "weights.pth"
            torch.save({"params": self._network.state_dict()}, file)
            self._tool = published.RealESRGANer(
                scale=spec.native_scale,
                model_path=str(file),
                model=kinds[spec.family](**spec.shape),
                tile=TILE_PX,
                tile_pad=TILE_PAD_PX,
                pre_pad=0,
                half=entry.device != "cpu",
                device=torch.device(entry.device),
            )
        self._tool.model.register_forward_pre_hook(self._note)
        self._bgr = np.ascontiguousarray(make_pixels(entry.height_px, entry.width_px)[..., ::-1])

    @property
    def label(self) -> str:
        return f"realesrgan float{16 if self._tool.half else 32}"

    def run(self) -> Pixels:
        self._windows.clear()
        with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
            bgr, _mode = self._tool.enhance(self._bgr)  # prints each tile
        rgb: Pixels = bgr[..., ::-1]
        return rgb

    def gflop(self) -> float:
        return count_gflop(self._network, self._windows)

    def peak_device_mib(self) -> float | None:
        return peak_of_cuda_mib(self._device)

    def _note(self, _network: object, given: tuple[torch.Tensor, ...]) -> None:
        height, width = given[0].shape[2:]
        self._windows[int(height), int(width)] += 1


def _import() -> PublishedRealEsrgan:
    try:
        return import_published()
    except ImportError as error:
        raise Absent(f"tests/reference/requirements.lock is not installed: {error}") from error
