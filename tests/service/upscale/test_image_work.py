import gc
import struct
import threading
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image as PillowImage

from tests.service.image.camera_files import ARTIST, block, camera_file
from tests.service.image.samples import exif_with_orientation, picture, save
from tests.service.image.sinks import KeptFile, Unreachable
from tests.service.upscale.box_engine import core_of
from tests.service.upscale.true_engine import TrueEngine
from upscaled.config import Settings
from upscaled.errors import InternalError, MalformedImage
from upscaled.image.formats.jpeg.writer import JpegWriter
from upscaled.image.formats.table import read_header
from upscaled.image.formats.whole_file import WholeFileWriter
from upscaled.image.output import OUTPUT_FORMATS, OutputChoice, OutputSpec, decide_output
from upscaled.image.types import Image
from upscaled.upscale.concurrency import Cancelled, WeightedSemaphore
from upscaled.upscale.image_work import fit, scale_to_run
from upscaled.upscale.result import Result
from upscaled_models.backends.base import Window
from upscaled_models.errors import EngineOutOfMemory


def run_job(
    source: bytes, scale: int, engine: TrueEngine, settings: Settings | None = None, **options: Any
) -> Result:
    with core_of(engine, settings) as core:
        return core.upscale(source, scale, **options)


def limited(source: bytes, scale: int, largest_px: int) -> OutputSpec:
    header = read_header(source)
    return decide_output(header, scale, keeps_depth=False, max_side_px=largest_px)


def decoded(data: bytes) -> PillowImage.Image:
    opened = PillowImage.open(BytesIO(data))
    opened.load()
    return opened


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_an_opaque_file_becomes_an_upright_jpeg_of_exactly_the_scale(scale: int, kind: str) -> None:
    source = save(picture(48, 64), kind, exif=exif_with_orientation(6))

    finished = run_job(source, scale, TrueEngine())

    assert finished.media_type == "image/jpeg"
    assert (finished.width_px, finished.height_px) == (48 * scale, 64 * scale)
    result = decoded(finished.data)
    assert (result.format, result.mode, result.size) == ("JPEG", "RGB", (48 * scale, 64 * scale))
    assert finished.model == "box"
    timings = finished.timings
    assert min(timings.decode_s, timings.network_s, timings.encode_s) > 0
    assert 0 < timings.device_s <= timings.network_s


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_a_transparent_file_becomes_a_png(kind: str) -> None:
    finished = run_job(save(picture(48, 64, channels=4), kind), 2, TrueEngine())

    result = decoded(finished.data)
    assert finished.media_type == "image/png"
    assert (result.format, result.mode, result.size) == ("PNG", "RGBA", (128, 96))


def test_a_cut_out_keeps_its_alpha_and_loses_the_black_under_it() -> None:
    pixels = np.zeros((40, 40, 4), np.uint8)
    pixels[10:30, 10:30] = (200, 40, 60, 255)

    finished = run_job(save(pixels, "PNG"), 2, TrueEngine(radius_px=0))

    result = np.asarray(decoded(finished.data))
    assert (result[24:56, 24:56, 3] == 255).all()
    assert (result[:16, :, 3] == 0).all()
    assert len(np.unique(result[::2, ::2, :3].reshape(-1, 3), axis=0)) == 1


@pytest.mark.parametrize(
    ("form", "usual"), [("jpeg", 95), ("png", None), ("webp", 90), ("avif", 85), ("lossless", None)]
)
def test_a_chosen_format_is_encoded_with_its_own_usual_quality(
    form: str, usual: int | None
) -> None:
    source = save(picture(96, 128, channels=4), "PNG")
    files = []
    for quality in (None, usual, 100 if usual else None):
        choice = OutputChoice(form, quality)
        output = decide_output(
            read_header(source), 2, keeps_depth=False, max_side_px=6000, choice=choice
        )
        finished = run_job(source, 2, TrueEngine(), output=output)
        result = decoded(finished.data)
        assert (result.format, result.size) == (OUTPUT_FORMATS[form], (256, 192))
        assert result.mode == ("RGB" if form == "jpeg" else "RGBA")
        assert finished.media_type == output.media_type
        files.append(finished.data)
    assert files[0] == files[1]
    assert usual is None or len(files[1]) < len(files[2])


@pytest.mark.parametrize(("form", "together"), [("avif", 1), ("webp", 1), ("jpeg", 3)])
def test_encoders_that_need_much_memory_share_a_bound(
    form: str, together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed = threading.Barrier(3)
    changed = threading.Condition()
    running, most = [0], [0]

    def compress(writer: Any, top: int, bottom: int) -> bytes:
        with changed:
            running[0] += 1
            most[0] = max(most[0], running[0])
            changed.notify_all()
            # All three would begin now; where they may not, it takes a moment to be seen.
            changed.wait_for(lambda: most[0] == 3, timeout=60 if together == 3 else 0.2)
            running[0] -= 1
        return original(writer, top, bottom)

    def wait_for_the_others(done: int, total: int) -> None:
        if done == total:
            computed.wait(60)

    kind = JpegWriter if form == "jpeg" else WholeFileWriter
    original = kind.compress
    monkeypatch.setattr(kind, "compress", compress)
    source = save(picture(24, 32), "PNG")
    output = decide_output(
        read_header(source), 2, keeps_depth=False, max_side_px=6000, choice=OutputChoice(form)
    )
    with core_of(TrueEngine()) as core, ThreadPoolExecutor(3) as threads:
        bound = replace(core, encoders=WeightedSemaphore(2 * output.encoder_bytes - 1))
        tasks = [
            threads.submit(bound.upscale, source, 2, output=output, on_tile=wait_for_the_others)
            for _ in range(3)
        ]
        assert {task.result(60).media_type for task in tasks} == {output.media_type}
    assert most == [together]


def test_a_chosen_size_is_averaged_in_linear_light() -> None:
    board = np.zeros((96, 96, 3), np.uint8)
    board[::2, ::2] = board[1::2, 1::2] = 255
    source = save(board, "PNG")
    levels = []
    for choice in (OutputChoice("png", max_side_px=96), OutputChoice("png")):
        output = decide_output(
            read_header(source),
            4,
            keeps_depth=False,
            max_side_px=96 if choice.max_side_px is None else 6000,
            choice=choice,
        )
        result = decoded(run_job(source, 4, TrueEngine(radius_px=0), output=output).data)
        assert result.size == (96, 96)
        levels.append(np.asarray(result).mean())
    assert abs(levels[0] - levels[1]) < 1  # whole pixels of the source: nothing to average
    choice = OutputChoice("png", max_side_px=48)
    output = decide_output(
        read_header(source), 4, keeps_depth=False, max_side_px=6000, choice=choice
    )
    result = decoded(run_job(source, 4, TrueEngine(radius_px=0), output=output).data)
    assert set(np.unique(np.asarray(result))) == {188}


def test_jpeg_quality_makes_larger_files() -> None:
    source = save(picture(), "PNG")
    engine = TrueEngine()

    small, large = (
        len(run_job(source, 2, engine, Settings(jpeg_quality=quality)).data) for quality in (20, 95)
    )

    assert small < large


@pytest.mark.parametrize(
    ("side", "scale", "largest", "expected"),
    [(50, 4, 200, 200), (51, 4, 200, 200), (50, 4, 199, 199), (100, 4, 200, 200), (60, 2, 90, 90)],
)
def test_a_longer_result_is_scaled_down_to_the_largest_side(
    side: int, scale: int, largest: int, expected: int
) -> None:
    source = save(picture(side, side // 2), "PNG")

    finished = run_job(source, scale, TrueEngine(), output=limited(source, scale, largest))

    assert finished.height_px == expected
    assert abs(finished.width_px - expected / side * (side // 2)) <= 0.5
    assert decoded(finished.data).size == (finished.width_px, finished.height_px)


def test_a_bad_file_is_refused_before_the_network_runs() -> None:
    engine = TrueEngine()

    with pytest.raises(MalformedImage):
        run_job(save(picture(), "PNG")[:-60], 2, engine)
    assert engine.seen == []


def test_an_image_cancelled_by_its_progress_callback_is_not_computed() -> None:
    def cancel(done: int, total: int) -> None:
        raise Cancelled

    engine = TrueEngine()
    with pytest.raises(Cancelled):
        run_job(save(picture(), "PNG"), 2, engine, on_tile=cancel)
    assert engine.seen == []


@pytest.mark.parametrize("form", ["jpeg", "png", "webp"])
def test_a_file_that_is_passed_on_as_it_grows_is_the_file_that_is_returned_whole(form: str) -> None:
    source, sink = save(picture(300, 40), "PNG"), KeptFile()
    output = decide_output(
        read_header(source), 2, keeps_depth=False, max_side_px=6000, choice=OutputChoice(form)
    )
    whole = run_job(source, 2, TrueEngine(), output=output)
    grown = run_job(source, 2, TrueEngine(), output=output, sink=sink)
    assert (grown.data, grown.size_bytes) == (b"", 0)
    assert sink.file == whole.data
    assert sink.result == grown


def test_an_image_whose_pieces_nothing_receives_ends() -> None:
    with pytest.raises(ConnectionError):
        run_job(save(picture(300, 40), "PNG"), 2, TrueEngine(), sink=Unreachable())


def black(result: Window) -> Window:
    return np.zeros_like(result)


def last_tile_black(result: Window) -> Window:
    """Half a window is what a device that ran out of time leaves."""
    damaged = result.copy()
    damaged[result.shape[0] // 2 :] = 0
    return damaged


def too_small(result: Window) -> Window:
    return result[1:]


def grey_of(result: Window) -> Window:
    return np.full_like(result, 230)


FAULTS = (black, last_tile_black, too_small, grey_of)


@pytest.mark.parametrize("fault", FAULTS)
def test_an_implausible_window_is_computed_once_more_in_float32(
    fault: Callable[[Window], Window],
) -> None:
    source = save(picture(120, 120), "PNG")
    right = run_job(source, 2, TrueEngine(window_px=64))
    engine = TrueEngine(window_px=64, fault=fault)

    finished = run_job(source, 2, engine)

    assert finished.data == right.data
    assert engine.exact


@pytest.mark.parametrize("fault", FAULTS)
def test_a_window_that_is_implausible_in_float32_too_is_an_error(
    fault: Callable[[Window], Window],
) -> None:
    engine = TrueEngine(window_px=64, fault=fault, exact_fault=fault)

    with pytest.raises(InternalError, match="box: a window fails its check"):
        run_job(save(picture(120, 120), "PNG"), 2, engine)


def warmer(result: Window) -> Window:
    return np.asarray(np.clip(result.astype(np.int16) + np.array((8, 0, -8)), 0, 255), np.uint8)


def test_colours_are_corrected_unless_the_setting_is_off() -> None:
    source = save(np.full((80, 90, 4), (128, 90, 60, 255), np.uint8), "PNG")

    def red_of(model: str, settings: Settings) -> int:
        engine = TrueEngine(window_px=48, model=model, fault=warmer)
        finished = run_job(source, 2, engine, settings)
        return int(np.asarray(decoded(finished.data))[..., 0].max())

    assert red_of("realesr-general-x4v3", Settings()) == 128
    assert red_of("a-model-of-mine", Settings()) == 128
    assert red_of("realesr-general-x4v3", Settings(colour_lock=False)) == 136
    assert red_of("upscaled-x2", Settings()) == 128
    assert red_of("upscaled-x2", Settings(colour_lock=False)) == 136


@pytest.mark.parametrize(("scale", "largest", "dpi"), [(2, 6000, 144), (4, 6000, 288), (4, 60, 90)])
@pytest.mark.parametrize("channels", [3, 4])
def test_the_resolution_grows_with_the_picture(
    scale: int, largest: int, dpi: float, channels: int
) -> None:
    source = save(picture(48, 48, channels), "PNG", dpi=(72, 72))

    finished = run_job(source, scale, TrueEngine(), output=limited(source, scale, largest))

    assert decoded(finished.data).info["dpi"] == pytest.approx((dpi, dpi), abs=0.1)


def test_the_credit_is_kept_only_where_keep_copyright_is_set() -> None:
    exif = PillowImage.Exif()
    exif[0x8298] = "(c) Ann Example"
    source = save(picture(), "JPEG", exif=exif)

    for is_kept in (False, True):
        settings = Settings(keep_copyright=is_kept)
        finished = run_job(source, 2, TrueEngine(), settings)
        assert (b"Ann Example" in finished.data) == is_kept


@pytest.mark.parametrize("form", ["jpeg", "png", "webp", "avif"])
@pytest.mark.parametrize("metadata", ["", "keep", "keep-all"])
def test_a_result_of_each_format_has_the_metadata_that_the_choice_keeps(
    form: str, metadata: str
) -> None:
    choice = OutputChoice(form, max_side_px=100, metadata=metadata)
    for kind in ("JPEG", "PNG", "WEBP"):
        source = camera_file(kind, orientation=6)
        output = decide_output(
            read_header(source), 2, keeps_depth=False, max_side_px=6000, choice=choice
        )
        result = decoded(run_job(source, 2, TrueEngine(), output=output).data)
        assert result.size == (75, 100)
        tags = result.getexif()
        assert tags.get(0x0112, 1) == 1
        if not metadata:
            assert set(tags) <= {0x011A, 0x011B, 0x0128}  # the resolution
            assert "xmp" not in result.info
            continue
        details = tags.get_ifd(0x8769)
        assert (details[0xA002], details[0xA003], details[0xA434]) == (75, 100, "Lens 35mm")
        assert tags[0x011A] == pytest.approx(72 * 100 / 64, abs=0.001)
        assert ARTIST.encode() in result.info["exif"]
        assert (b"2026:11:22\x00" in result.info["exif"]) == (metadata == "keep-all")
        packet = result.info["xmp"].decode()
        assert 'exif:PixelXDimension="75"' in packet
        assert ("GPSLatitude" in packet) == (metadata == "keep-all")


def test_the_credit_is_written_where_no_block_can_be_kept() -> None:
    source = save(picture(), "JPEG", exif=b"Exif\0\0" + overfull_block())
    choice = OutputChoice(metadata="keep")
    output = decide_output(
        read_header(source), 2, keeps_depth=False, max_side_px=6000, choice=choice
    )
    for is_kept in (False, True):
        settings = Settings(keep_copyright=is_kept)
        data = run_job(source, 2, TrueEngine(), settings, output=output).data
        assert (b"Ann Example" in data) == is_kept


def overfull_block() -> bytes:
    """Make a block of which two values refer to the same bytes, so that both are too many."""
    values = {0x013B: (2, 12, b"Ann Example\0"), 0x010E: (2, 40_000, b"n" * 40_000)}
    block_of_one = block("<", values, {}, {})
    at = block_of_one.index(b"n" * 40_000)
    values[0x0131] = (2, 40_000, struct.pack("<I", at + 12))
    return block("<", values, {}, {})


def test_an_image_computed_again_in_smaller_windows_is_encoded_again() -> None:
    """The encoder had begun with rows of a canvas that was given up."""
    source = save(picture(400, 90, 4), "PNG")
    calls = 0

    def out_of_memory_once(result: Window) -> Window:
        nonlocal calls
        calls += 1
        if calls == 6:
            raise EngineOutOfMemory
        return result

    right = run_job(source, 2, TrueEngine(window_px=100))
    engine = TrueEngine(window_px=100, fault=out_of_memory_once)

    assert run_job(source, 2, engine).data == right.data
    assert min(engine.seen) < (100, 90)


@pytest.mark.parametrize("channels", [pytest.param(3, marks=pytest.mark.slow), 4])
def test_no_pixels_wait_for_the_garbage_collector(channels: int) -> None:
    """Arrays do not count for it: in a cycle of references they would be kept for many images."""
    source = save(picture(350, 350, channels), "PNG")
    run_job(source, 2, TrueEngine())
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        run_job(source, 2, TrueEngine())
        left, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        gc.enable()
    assert peak - before > 1_470_000  # one canvas at least was counted
    assert left - before < 490_000


@pytest.mark.parametrize(
    ("longest_px", "scale", "run_at"),
    [(1500, 4, 4), (1501, 4, 4), (2999, 4, 4), (3000, 4, 2), (6000, 4, 2), (6000, 2, 2)],
)
def test_no_more_is_computed_than_the_largest_result_needs(
    longest_px: int, scale: int, run_at: int
) -> None:
    image = Image(np.zeros((longest_px, 2, 3), np.uint8))
    output = decide_output(image, scale, keeps_depth=False, max_side_px=6000)
    assert scale_to_run(image, scale, output) == run_at


def fitted(image: Image) -> Image:
    return fit(image, decide_output(image, 2, keeps_depth=False, max_side_px=60))


@pytest.mark.parametrize("level", [0, 1, 127, 254, 255])
def test_flat_areas_keep_their_level_and_the_image_its_profile(level: int) -> None:
    rgb, alpha = np.full((97, 83, 3), level, np.uint8), np.full((97, 83), level, np.uint8)
    small = fitted(Image(rgb, alpha, icc=b"profile"))
    assert small.rgb.shape == (60, 51, 3)
    assert (small.rgb == level).all()
    assert small.alpha is not None
    assert small.alpha.shape == (60, 51)
    assert (small.alpha == level).all()
    assert small.icc == b"profile"


def test_a_checkerboard_becomes_its_mean_not_one_of_its_fields() -> None:
    rows, columns = np.mgrid[0:120, 0:120]
    board = ((rows + columns) % 2 * 200).astype(np.uint8)[..., None].repeat(3, axis=2)

    assert (fitted(Image(board)).rgb == 100).all()
