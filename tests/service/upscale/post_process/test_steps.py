"""Strips of windows in parallel, against the same steps in one piece."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from scripts.evaluation.upscalers import Upscaler, network_upscaler, open_network
from upscaled.upscale.post_process import steps
from upscaled.upscale.post_process.colour_correction import correct_colours
from upscaled.upscale.post_process.steps import (
    BLOCK_PX,
    LEAST_ROWS_PX,
    PostProcessing,
    is_plausible,
)
from upscaled.upscale.post_process.tempering import Tempering, temper
from upscaled_models.backends.base import Window

TEMPERING = Tempering(8, 0.5)
Pixels = NDArray[np.uint8]
SIDE_PX = 48


@pytest.fixture(scope="module")
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


def source_of(height: int, width: int = 50) -> Window:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)


def result_of(source: Window, gain: int) -> Window:
    enlarged = source.repeat(gain, axis=0).repeat(gain, axis=1)
    noise = np.random.default_rng(1).integers(0, 9, enlarged.shape, dtype=np.uint8)
    return np.asarray(np.minimum(enlarged, 240) + noise, np.uint8)


@pytest.mark.parametrize("height", [1, 63, 64, 127, 128, 200, 333])
@pytest.mark.parametrize("gain", [1, 2, 4])
def test_colours_corrected_in_strips_are_the_same_to_the_last_bit(
    threads: ThreadPoolExecutor, height: int, gain: int
) -> None:
    source = source_of(height)
    result = result_of(source, gain)
    steps = PostProcessing(corrects_colours=True, threads=threads)
    assert np.array_equal(steps.correct(source, result), correct_colours(source, result))


@pytest.mark.parametrize("height", [2, 128, 130, 400])
def test_windows_tempered_in_strips_are_the_same_to_the_last_bit(
    threads: ThreadPoolExecutor, height: int
) -> None:
    vivid = source_of(height)
    faithful, source = result_of(vivid, 1), source_of(height // 2, 25)
    steps = PostProcessing(tempering=TEMPERING, threads=threads)
    assert np.array_equal(steps.temper(source, vivid, faithful), temper(vivid, faithful, TEMPERING))


@pytest.mark.parametrize("row", [0, 100, 255, 332])
def test_a_fault_in_any_strip_is_found(threads: ThreadPoolExecutor, row: int) -> None:
    source = source_of(333)
    result = result_of(source, 2)
    steps = PostProcessing(checks=True, threads=threads)
    averaged = steps.average_plausible(source, result)
    size = (source.shape[1], source.shape[0])
    whole = cv2.resize(result, size, interpolation=cv2.INTER_AREA)
    assert averaged is not None
    assert np.array_equal(averaged, whole)

    result[max(0, 2 * row - 64) : 2 * row + 64] = 0

    assert steps.average_plausible(source, result) is None


def test_a_result_of_another_size_is_not_plausible(threads: ThreadPoolExecutor) -> None:
    steps = PostProcessing(checks=True, threads=threads)
    assert steps.average_plausible(source_of(200), result_of(source_of(201), 2)) is None


@pytest.mark.parametrize(
    ("height", "strips"),
    [(LEAST_ROWS_PX + 1, [LEAST_ROWS_PX + 1]), (400, [64] * 5 + [80]), (1000, [104] + [128] * 7)],
)
def test_windows_are_cut_only_where_that_pays(
    threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch, height: int, strips: list[int]
) -> None:
    seen: list[int] = []

    def note(source: Window, result: Window) -> Window:
        seen.append(source.shape[0])
        return source

    monkeypatch.setattr(steps, "average_plausible", note)
    source = source_of(height)
    averaged = PostProcessing(checks=True, threads=threads).average_plausible(source, source)
    assert averaged is not None
    assert np.array_equal(averaged, source)
    assert sorted(seen) == strips


def test_without_a_step_the_result_is_kept_as_it_is(threads: ThreadPoolExecutor) -> None:
    result = result_of(source_of(200), 2)
    assert PostProcessing(threads=threads).correct(source_of(200), result) is result


def harsh_pictures() -> Iterator[tuple[str, Pixels]]:
    """Draw what networks were never trained on: noise, patterns, text, one colour, tiny sizes."""
    chance = np.random.default_rng(0)
    rows, columns = np.mgrid[:SIDE_PX, :SIDE_PX]
    yield "noise", chance.integers(0, 256, (SIDE_PX, SIDE_PX, 3), dtype=np.uint8)
    yield "binary noise", (chance.integers(0, 2, (SIDE_PX, SIDE_PX, 3)) * 255).astype(np.uint8)
    yield "stars", np.where(chance.random((SIDE_PX, SIDE_PX, 1)) < 0.03, 255, 0).repeat(3, 2)
    for width in (1, 2, 3):
        board = ((columns // width + rows // width) % 2 * 255).astype(np.uint8)
        yield f"board {width}", np.dstack([board] * 3)
        yield f"red and blue board {width}", np.dstack([board, 0 * board, 255 - board])
        lines = (columns // width % 2 * 255).astype(np.uint8)
        yield f"lines {width}", np.dstack([lines] * 3)
    for colour in ((0, 0, 0), (3, 3, 3), (15, 15, 15), (255, 0, 0), (0, 0, 255), (255, 255, 255)):
        yield f"flat {colour}", np.full((SIDE_PX, SIDE_PX, 3), colour, np.uint8)
    text = Image.new("RGB", (SIDE_PX, SIDE_PX), "white")
    ImageDraw.Draw(text).multiline_text((0, 0), "the quick\nbrown fox\njumps", fill="black")
    yield "text", np.asarray(text)
    yield "white text", 255 - np.asarray(text)
    for shape in ((1, 1), (2, 3), (SIDE_PX, 1)):
        yield f"tiny {shape}", chance.integers(0, 256, (*shape, 3), dtype=np.uint8)


def complaints(upscale: Upscaler, pictures: Iterator[tuple[str, Pixels]]) -> list[str]:
    return [
        name
        for name, picture in pictures
        if not is_plausible(np.asarray(picture, np.uint8), upscale(np.asarray(picture, np.uint8)))
    ]


@pytest.mark.parametrize(
    "model", ["upscaled-x2", pytest.param("upscaled-x4", marks=pytest.mark.slow)]
)
def test_the_shipped_models_pass_the_check_over_the_harshest_images(
    model: str, tmp_path: Path
) -> None:
    network, scale = open_network(model, tmp_path)

    assert complaints(network_upscaler(network, scale, scale), harsh_pictures()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "realesr-general-x4v3.fp16.safetensors",
        "realesr-general-wdn-x4v3.fp16.safetensors",
        "realesr-animevideov3.pth",
        "4xLSDIRCompactC3.fp16.safetensors",
    ],
)
def test_no_official_network_fails_the_check_over_harsh_or_real_images(
    shared_dir: Path, name: str
) -> None:
    network, scale = open_network(str(shared_dir / "weights" / name), shared_dir)
    upscale = network_upscaler(network, scale, scale)

    def real_pictures() -> Iterator[tuple[str, Pixels]]:
        for path in sorted((shared_dir / "images" / "quality").rglob("*.png")):
            with Image.open(path) as opened:
                yield path.name, np.asarray(opened.convert("RGB"))[:200, :200]

    assert complaints(upscale, harsh_pictures()) == []
    assert complaints(upscale, real_pictures()) == []


def enlarged(source: NDArray[np.unsignedinteger]) -> NDArray[np.unsignedinteger]:
    return source.repeat(4, axis=0).repeat(4, axis=1)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("level", [0.2, 0.5, 0.99])
def test_one_black_block_is_implausible(level: float, kind: type[np.unsignedinteger]) -> None:
    source = np.full((200, 200, 3), int(level * np.iinfo(kind).max), kind)
    result = enlarged(source)
    assert is_plausible(source, result)
    side = BLOCK_PX * 4 * 3 // 2
    result[100 : 100 + side, 200 : 200 + side] = 0

    assert not is_plausible(source, result)


@pytest.mark.parametrize(
    "shape", [(400, 400, 3), (798, 800, 3), (800, 799, 3), (800, 800, 4), (100, 100, 3)]
)
def test_a_result_of_another_size_is_implausible(shape: tuple[int, int, int]) -> None:
    source = np.full((200, 200, 3), 90, np.uint8)

    assert is_plausible(source, np.full(shape, 90, np.uint8)) == (shape == (400, 400, 3))


def is_near_by_definition(source: Window, result: Window) -> bool:
    """The sanity check of a result as large as its source, with nothing left out."""
    height, width = source.shape[:2]
    peak = float(np.iinfo(source.dtype).max)
    blocks = (max(1, width // BLOCK_PX), max(1, height // BLOCK_PX))

    def average(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(cv2.resize(pixels, blocks, interpolation=cv2.INTER_AREA), np.float32)

    before = source.astype(np.float32)
    mean, mean_after = average(before), average(result.astype(np.float32))
    contrast = np.sqrt(np.maximum(average(np.square(before)) - np.square(mean), 0))
    allowed = 24 / 255 * peak * (2 if min(height, width) < BLOCK_PX else 1)
    allowed = allowed + 0.75 * contrast.max(axis=2, keepdims=True)
    is_black = (mean_after.max(axis=2) == 0) & (mean.max(axis=2) > 16 / 255 * peak)
    return bool(np.all(np.abs(mean_after - mean) <= allowed) and not is_black.any())


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("side_px", [20, 70, 128])
def test_what_is_plausible_at_a_glance_is_so_by_the_whole_check(
    side_px: int, kind: type[np.unsignedinteger]
) -> None:
    """Around both limits: for pictures of all contrasts, shifted, blackened, in a part or whole."""
    chance, level, found = np.random.default_rng(side_px), np.iinfo(kind).max // 255, []
    for contrast in (0, 3, 12, 40):
        noise = chance.normal(0, contrast, (side_px, side_px, 3))
        for base in (15, 16, 17, 25, 128):
            source = (np.clip(base + noise, 0, 255) * level).astype(kind)
            for shift in (-26, -24, -18, -16, -15, -13, 2, 14, 15, 16, 17, 22, 24, 25, 49, 200):
                shifted = np.clip(source + shift * float(level), 0, 255 * level).astype(kind)
                mixed = source.copy()
                mixed[side_px // 2 :] = shifted[side_px // 2 :]
                for result in (shifted, mixed, np.zeros_like(source)):
                    expected = is_near_by_definition(source, result)
                    assert is_plausible(source, result) == expected, (contrast, base, shift)
                    found.append(expected)
    assert 0.2 < np.mean(found) < 0.8


def test_a_window_of_another_image_is_implausible() -> None:
    chance = np.random.default_rng(1)
    smooth = [
        np.asarray(Image.fromarray(chance.integers(0, 256, (4, 4, 3), np.uint8)).resize((96, 96)))
        for _ in range(12)
    ]

    for source in smooth:
        plausible = [is_plausible(source, enlarged(other)) for other in smooth]
        assert sum(plausible) == 1


def test_black_is_implausible_but_where_the_source_is_black() -> None:
    for level in (0, 5, 20):
        source = np.full((96, 96, 3), level, np.uint8)
        assert is_plausible(source, np.zeros((384, 384, 3), np.uint8)) == (level < 16)
