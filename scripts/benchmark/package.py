"""The published `realesrgan` package as it ships, as a contestant."""

import contextlib
import os
import tempfile
from pathlib import Path

import numpy as np
import torch

from scripts.benchmark.contestant import Absent, Entry
from scripts.benchmark.flops import count_gflop
from scripts.benchmark.ours import find_spec
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
        published = _import()
        classes = {"rrdb": published.RRDBNet, "srvgg": published.SRVGGNetCompact}
        spec = find_spec(entry)
        if spec.family not in classes:
            raise Absent(f"realesrgan has no {spec.family} network")
        network = load_network(spec, ModelStore(Path(entry.data_dir) / "models").target(spec))
        self.gflop = count_gflop(network, entry.height_px, entry.width_px)
        self.label = f"realesrgan float{32 if entry.device == 'cpu' else 16}"
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "weights.pth"
            torch.save({"params": network.state_dict()}, file)
            self._tool = published.RealESRGANer(
                scale=spec.native_scale,
                model_path=str(file),
                model=classes[spec.family](**spec.shape),
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


def _import() -> PublishedRealEsrgan:
    try:
        return import_published()
    except ImportError as error:
        raise Absent(f"tests/reference/requirements.lock is not installed: {error}") from error
