"""Our networks against `RealESRGANer.enhance`, the published tool, on whole images."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from tests.reference.standins import PublishedRealEsrgan
from upscaled_models.packaged import install_packaged, is_packaged_here
from upscaled_models.registry import WEIGHTS_PACKAGE, ModelSpec, official_models
from upscaled_models.store import ModelStore
from upscaled_models.weights import build_network, load_network

pytestmark = pytest.mark.usefixtures("one_thread")

LARGE = ("realesrgan-x4plus", "realesrgan-x2plus")
SHAPES = [
    spec
    for spec in official_models()
    if spec.name not in ("realesrnet-x4plus", "realesr-general-wdn-x4v3")
]
ANIMEVIDEO = next(spec for spec in official_models() if spec.name == "realesr-animevideov3")
PACKAGED_RRDB = [
    spec.packaged
    for spec in official_models()
    if spec.family == "rrdb" and spec.packaged is not None
]
PHOTO = Path(__file__).resolve().parents[3] / "scripts" / "sample" / "cat.jpg"

Pixels = NDArray[np.uint8]


def photo_of(height_px: int, width_px: int) -> Pixels:
    """Draw a picture with edges and gradients, `[height_px, width_px, 3]`."""
    y, x = np.mgrid[0:height_px, 0:width_px]
    waves = np.stack([np.sin(x / 3), np.cos(y / 4), np.sin((x + y) / 5)], axis=-1)
    steps = ((x // 7 + y // 5) % 2)[..., None]
    pixels: Pixels = np.rint(127 + 80 * waves + 40 * steps).clip(0, 255).astype(np.uint8)
    return pixels


def run_ours(network: nn.Module, rgb: Pixels) -> Pixels:
    """RGB `[h, w, 3]` -> `[h * s, w * s, 3]`, rounded to nearest."""
    batch = torch.from_numpy(rgb.transpose(2, 0, 1).copy())[None].float() / 255
    with torch.inference_mode():
        out = network(batch)[0].clamp(0, 1)
    pixels: Pixels = (out * 255).round().byte().numpy().transpose(1, 2, 0)
    return pixels


def run_theirs(
    published: PublishedRealEsrgan, spec: ModelSpec, weights: Path, rgb: Pixels
) -> Pixels:
    kind = published.RRDBNet if spec.family == "rrdb" else published.SRVGGNetCompact
    tool = published.RealESRGANer(
        scale=spec.native_scale,
        model_path=str(weights),
        model=kind(**spec.shape),
        tile=0,
        pre_pad=0,
        half=False,
        device=torch.device("cpu"),
    )
    bgr, _mode = tool.enhance(rgb[..., ::-1])
    enhanced: Pixels = bgr[..., ::-1]
    return enhanced


def bring_into_range(network: nn.Module, rgb: Pixels) -> None:
    """Fresh RRDB weights give nearly one flat colour: rescale the last layer to span the range."""
    last = network.get_submodule("conv_last")
    assert isinstance(last, nn.Conv2d)
    assert last.bias is not None
    batch = torch.from_numpy(rgb.transpose(2, 0, 1).copy())[None].float() / 255
    with torch.no_grad():
        out = network(batch)
        gain = 0.2 / out.std(dim=(0, 2, 3))
        last.bias.copy_(0.5 + (last.bias - out.mean(dim=(0, 2, 3))) * gain)
        last.weight.mul_(gain[:, None, None, None])


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param(spec, id=spec.name, marks=pytest.mark.slow if spec.name in LARGE else ())
        for spec in SHAPES
    ],
)
def test_a_whole_image_is_within_one_level_of_the_published_tools(
    spec: ModelSpec, published: PublishedRealEsrgan, tmp_path: Path
) -> None:
    height_px, width_px = 8, 12
    rgb = photo_of(height_px, width_px)
    torch.manual_seed(0)
    network = build_network(spec.family, spec.shape).eval()
    if spec.family == "rrdb":
        bring_into_range(network, rgb)
    weights = tmp_path / "random.pth"
    torch.save({"params_ema": network.state_dict()}, weights)
    ours = run_ours(network, rgb)
    theirs = run_theirs(published, spec, weights, rgb)
    scale = spec.native_scale
    assert ours.shape == theirs.shape == (height_px * scale, width_px * scale, 3)
    assert np.abs(ours.astype(int) - theirs).max() <= 1
    assert len(np.unique(ours)) > 100, "an image of few levels would agree by chance"


def test_the_official_file_gives_what_the_published_tool_gives_with_it(
    published: PublishedRealEsrgan, animevideo_file: Path
) -> None:
    rgb = photo_of(60, 44)
    ours = run_ours(load_network(ANIMEVIDEO, animevideo_file), rgb)
    theirs = run_theirs(published, ANIMEVIDEO, animevideo_file, rgb)
    assert np.abs(ours.astype(int) - theirs).max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize("spec", PACKAGED_RRDB, ids=lambda spec: spec.name)
def test_real_weights_give_a_real_photo_within_one_level_of_the_published_tools(
    spec: ModelSpec, published: PublishedRealEsrgan, tmp_path: Path
) -> None:
    if not is_packaged_here(spec):
        pytest.skip(f"{WEIGHTS_PACKAGE} is not installed (the extra `realesrgan`)")
    network = load_network(spec, install_packaged(spec, ModelStore(tmp_path)))
    weights = tmp_path / "same.pth"
    torch.save({"params_ema": network.state_dict()}, weights)
    bgr = cv2.imread(str(PHOTO))
    assert bgr is not None
    rgb = np.ascontiguousarray(bgr[140:164, 180:212, ::-1]).astype(np.uint8)
    ours = run_ours(network, rgb)
    theirs = run_theirs(published, spec, weights, rgb)
    assert ours.shape == theirs.shape == (96, 128, 3)
    assert np.abs(ours.astype(int) - theirs).max() <= 1
    assert ours.std() > 20, "a flat picture would agree by chance"


def test_the_official_file_upscales_a_real_picture(animevideo_file: Path, shared_dir: Path) -> None:
    """It was trained to clean and sharpen, not for the nearest pixels: it may lose to bicubic by
    a little in PSNR, never by much, and its edges are steeper.
    """
    original = cv2.imread(str(shared_dir / "images" / "quality" / "Set14" / "comic.png"))
    assert original is not None
    rgb = original[: original.shape[0] // 4 * 4, : original.shape[1] // 4 * 4, ::-1]
    height_px, width_px = rgb.shape[0] // 4, rgb.shape[1] // 4
    small: Pixels = cv2.resize(rgb, (width_px, height_px), interpolation=cv2.INTER_AREA).astype(
        np.uint8
    )
    bicubic = cv2.resize(small, (width_px * 4, height_px * 4), interpolation=cv2.INTER_CUBIC)
    ours = run_ours(load_network(ANIMEVIDEO, animevideo_file), small)
    assert ours.shape == rgb.shape
    assert psnr_db(ours, rgb) > psnr_db(bicubic, rgb) - 1.0
    assert sharpness(ours) > 1.3 * sharpness(bicubic)


def psnr_db(image: NDArray[np.generic], reference: NDArray[np.generic]) -> float:
    error = np.mean((image.astype(float) - reference.astype(float)) ** 2)
    return float(10 * np.log10(255**2 / error))


def sharpness(image: NDArray[np.generic]) -> float:
    """Mean step between neighbouring pixels, in levels."""
    return float(np.abs(np.diff(image.astype(float), axis=1)).mean())
