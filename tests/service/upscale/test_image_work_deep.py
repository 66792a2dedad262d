"""Pictures of 16 bits a channel, through a whole job: file in, file out."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image as PillowImage

from tests.service.image.samples import GREY, GREY_ALPHA, RGB, RGBA, chunk, png
from tests.service.opened import open_engine
from tests.service.upscale.box_engine import core_of, upscale_through
from tests.service.upscale.test_image_work import decoded
from tests.service.upscale.true_engine import TrueEngine
from upscaled.config import Settings
from upscaled.image.formats.table import read_header
from upscaled.image.output import decide_output
from upscaled.image.types import Image
from upscaled.upscale.post_process.steps import PostProcessing
from upscaled_models.backends.base import Engine
from upscaled_models.store import ModelStore
from upscaled_models.weights import load_network

Deep = NDArray[np.uint16]
CHANNELS = {GREY: 1, GREY_ALPHA: 2, RGB: 3, RGBA: 4}


def gradient(height: int = 40, width: int = 56, channels: int = 4) -> Deep:
    """Faint: 16 of 256 levels from corner to corner, in 16 bits more than a thousand."""
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float64)
    planes = [
        20_000 + 2_000 * rows / height + 2_000 * columns / width,
        30_000 - 4_000 * rows / height,
        41_000 + 4_000 * np.sin(columns / 9),
        1 + 65_534 * (rows + columns) / (height + width - 2),
    ]
    levels: Deep = np.rint(np.stack(planes[:channels], axis=-1)).astype(np.uint16)
    return levels


def read_deep_png(data: bytes) -> Deep:
    """By libpng, through OpenCV: `[H, W, 3 or 4]` in RGB order."""
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert pixels is not None
    assert pixels.dtype == np.uint16
    in_order = np.empty(pixels.shape, np.uint16)
    in_order[:] = pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]
    return in_order


def upscaled(
    source: bytes, engine: Engine, scale: int = 4, **settings: object
) -> tuple[str, bytes]:
    with core_of(engine, Settings.model_validate(settings)) as core:
        made = core.upscale(source, scale)
    return made.media_type, made.data


@pytest.fixture(scope="module")
def engine() -> Engine:
    return open_faithful(tile_window_px=64)


def open_faithful(tile_window_px: int) -> Engine:
    settings = Settings(
        precision="exact", threads=1, tile_window_px=tile_window_px, model_x4="upscaled-x4-faithful"
    )
    return open_engine(settings, 4)


def in_float64(rgb: Deep) -> NDArray[np.float64]:
    """Run the shipped network on the whole picture at once, in levels of 16 bits."""
    store = ModelStore(Path("nowhere"))
    spec = store.find("upscaled-x4-faithful")
    path = store.path(spec)
    assert path is not None
    pixels = torch.from_numpy(rgb.astype(np.float64) / 65_535).permute(2, 0, 1)[None]
    with torch.inference_mode():
        result = load_network(spec, path).double()(pixels).clamp(0, 1)
    return np.asarray(result[0].permute(1, 2, 0).numpy() * 65_535)


def test_a_faint_gradient_keeps_its_thousands_of_levels(engine: Engine) -> None:
    """Held against the network in float64, untiled: half a level for rounding, and what float32
    loses."""
    source = gradient(channels=4)

    media_type, data = upscaled(png(source, 16, RGBA), engine)

    assert media_type == "image/png"
    result = read_deep_png(data)
    assert result.shape == (160, 224, 4)
    assert len(np.unique(result[..., 0])) > 2_500
    assert len(np.unique(result[..., 3])) > 4_000
    errors = np.abs(result[..., :3] - in_float64(source[..., :3]))
    assert errors.max() <= 0.6


def test_tiles_have_no_seams(engine: Engine) -> None:
    """Nothing but float32's own last digit, which depends on how a processor adds up a row."""
    image = Image(gradient(90, 100, channels=3))
    steps = PostProcessing(checks=True, corrects_colours=True)
    whole = open_faithful(tile_window_px=256)
    results = [
        upscale_through(image, 4, each, steps=steps).rgb.astype(int) for each in (engine, whole)
    ]

    assert np.abs(results[0] - results[1]).max() <= 1


@pytest.mark.parametrize("colour", [GREY, GREY_ALPHA, RGB, RGBA])
@pytest.mark.parametrize("deep_png", [False, True])
def test_deep_images_with_alpha_become_deep_pngs_and_opaque_ones_by_the_setting(
    colour: int, deep_png: bool
) -> None:
    """Alpha makes it a PNG, which is deep; opaque ones are JPEGs unless the setting says deep."""
    samples = gradient(channels=CHANNELS[colour])

    media_type, data = upscaled(
        png(samples, 16, colour), TrueEngine(), 2, deep_png=deep_png, jpeg_quality=100
    )

    if colour in (GREY, RGB) and not deep_png:
        assert media_type == "image/jpeg"
        expected = np.rint(samples / 257).repeat(2, axis=0).repeat(2, axis=1)
        assert np.abs(np.asarray(decoded(data)) - expected).max() <= 3
        return
    assert media_type == "image/png"
    result = read_deep_png(data)
    large = samples.repeat(2, axis=0).repeat(2, axis=1)
    count = 1 if colour in (GREY, GREY_ALPHA) else 3
    assert np.array_equal(result[..., :3], np.broadcast_to(large[..., :count], (80, 112, 3)))
    assert result.shape[2] == (4 if colour in (GREY_ALPHA, RGBA) else 3)


@pytest.mark.parametrize("colour", [GREY, RGB])
def test_a_deep_colour_key_becomes_deep_alpha(colour: int) -> None:
    samples = gradient(channels=CHANNELS[colour])
    samples[10:30, 10:40] = 7
    key = chunk(b"tRNS", b"\x00\x07" * CHANNELS[colour])

    _, data = upscaled(png(samples, 16, colour, before=key), TrueEngine(), 2)

    alpha = read_deep_png(data)[..., 3]
    assert (alpha[24:56, 24:76] == 0).all()
    assert (alpha[:16] == 65_535).all()


def test_grey_is_neutral_to_the_last_bit(engine: Engine) -> None:
    samples = gradient(channels=2)

    _, data = upscaled(png(samples, 16, GREY_ALPHA), engine)

    result = read_deep_png(data)
    assert (result[..., :1] == result[..., 1:3]).all()


def test_a_deep_result_that_is_too_long_is_averaged_down_in_its_depth() -> None:
    source = png(gradient(60, 60), 16, RGBA)
    output = decide_output(read_header(source), 2, keeps_depth=False, max_side_px=100)

    with core_of(TrueEngine()) as core:
        made = core.upscale(source, 2, output=output)

    assert read_deep_png(made.data).shape == (100, 100, 4)


def test_a_source_of_8_bits_has_a_result_of_8_bits() -> None:
    samples = np.asarray(gradient(channels=4) >> 8, np.uint16)

    _, data = upscaled(png(samples, 8, RGBA), TrueEngine(), 2, deep_png=True)

    assert decoded(data).mode == "RGBA"


def test_a_jpeg_of_a_deep_ramp_is_as_smooth_as_8_bits_allow() -> None:
    """Rounded to the nearest, never cut off: on the mean nothing gets darker."""
    ramp = np.linspace(0, 65_535, 256 * 64).astype(np.uint16).reshape(64, 256, 1)

    _, data = upscaled(png(ramp, 16, GREY), TrueEngine(), 2, jpeg_quality=100)

    opened = np.asarray(decoded(data).convert("L"), np.float64)
    assert isinstance(decoded(data), PillowImage.Image)
    assert abs(opened.mean() - ramp.mean() / 257) < 0.05
