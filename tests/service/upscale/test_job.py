from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image as PillowImage

from service.config import Settings
from service.errors import MalformedImage
from service.image.types import Image
from service.upscale.job import Finished
from service.upscale.job import run_job as run_in_lane
from service.upscale.lane import Cancelled
from tests.service.image.samples import exif_with_orientation, picture, save
from tests.service.upscale.box_engine import BoxEngine, lane_of


def ignore(done: int, total: int) -> None:
    """An `on_tile` of nobody."""


def run_job(
    source: bytes, scale: int, engine: BoxEngine, settings: Settings, *rest: Any, **options: Any
) -> Finished:
    with lane_of(engine) as lane:
        return run_in_lane(source, scale, lane, settings, *rest, **options)


def decoded(data: bytes) -> PillowImage.Image:
    opened = PillowImage.open(BytesIO(data))
    opened.load()
    return opened


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_an_opaque_file_becomes_an_upright_jpeg_of_exactly_the_scale(scale: int, kind: str) -> None:
    source = save(picture(48, 64), kind, exif=exif_with_orientation(6))

    finished = run_job(source, scale, BoxEngine(), Settings(), ignore)

    assert finished.media_type == "image/jpeg"
    assert (finished.width_px, finished.height_px) == (48 * scale, 64 * scale)
    result = decoded(finished.data)
    assert (result.format, result.mode, result.size) == ("JPEG", "RGB", (48 * scale, 64 * scale))
    assert finished.model == "box"
    assert min(finished.decode_s, finished.network_s, finished.encode_s) > 0
    assert 0 < finished.device_s <= finished.network_s


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_a_transparent_file_becomes_a_png(kind: str) -> None:
    source = save(picture(48, 64, channels=4), kind)

    finished = run_job(source, 2, BoxEngine(), Settings(), ignore)

    assert finished.media_type == "image/png"
    result = decoded(finished.data)
    assert (result.format, result.mode, result.size) == ("PNG", "RGBA", (128, 96))


def test_a_cut_out_keeps_its_alpha_and_loses_the_black_under_it() -> None:
    pixels = np.zeros((40, 40, 4), np.uint8)
    pixels[10:30, 10:30] = (200, 40, 60, 255)

    finished = run_job(save(pixels, "PNG"), 2, BoxEngine(radius_px=0), Settings(), ignore)

    result = np.asarray(decoded(finished.data))
    assert (result[24:56, 24:56, 3] == 255).all()
    assert (result[:16, :, 3] == 0).all()
    assert len(np.unique(result[::2, ::2, :3].reshape(-1, 3), axis=0)) == 1


def test_the_quality_setting_is_heeded() -> None:
    source = save(picture(), "PNG")
    engine = BoxEngine()

    small, large = (
        len(run_job(source, 2, engine, Settings(jpeg_quality=quality), ignore).data)
        for quality in (20, 95)
    )

    assert small < large


@pytest.mark.parametrize(
    ("side", "scale", "largest", "expected"),
    [(50, 4, 200, 200), (51, 4, 200, 200), (50, 4, 199, 199), (100, 4, 200, 200), (60, 2, 90, 90)],
)
def test_a_result_ends_at_the_largest_side(
    side: int, scale: int, largest: int, expected: int
) -> None:
    source = save(picture(side, side // 2), "PNG")

    finished = run_job(source, scale, BoxEngine(), Settings(), ignore, max_output_side_px=largest)

    assert finished.height_px == expected
    assert abs(finished.width_px - expected / side * (side // 2)) <= 0.5
    assert decoded(finished.data).size == (finished.width_px, finished.height_px)


def test_a_bad_file_is_refused_before_the_network_is_asked() -> None:
    engine = BoxEngine()

    with pytest.raises(MalformedImage):
        run_job(save(picture(), "PNG")[:-60], 2, engine, Settings(), ignore)
    assert engine.seen == []


def test_cancelling_comes_through() -> None:
    def cancel(done: int, total: int) -> None:
        raise Cancelled

    engine = BoxEngine()
    with pytest.raises(Cancelled):
        run_job(save(picture(), "PNG"), 2, engine, Settings(), cancel)
    assert engine.seen == []


def test_another_decoder_can_take_the_place_of_the_one_in_this_process() -> None:
    asked: list[bytes] = []

    def decode(source: bytes) -> Image:
        asked.append(source)
        return Image(picture(5, 6))

    finished = run_job(b"anything", 2, BoxEngine(), Settings(), ignore, decode=decode)

    assert asked == [b"anything"]
    assert decoded(finished.data).size == (12, 10) == (finished.width_px, finished.height_px)
