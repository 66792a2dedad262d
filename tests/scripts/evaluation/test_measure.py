"""Measuring: tracks are harder and harder, and a wrong upscaler is found out."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scripts.evaluation.measure import Truth, flat_error_levels, measure, read_truths
from scripts.evaluation.sheet import draw_sheet
from scripts.evaluation.upscalers import KERNELS, kernel_upscaler
from upscaled_models.quantise.drawing import draw_page
from upscaled_models.quantise.tracks import FILES, make_small

BICUBIC = kernel_upscaler(KERNELS["bicubic"], 4)


@pytest.fixture(scope="module")
def truths() -> list[Truth]:
    return [Truth(f"page{seed}", draw_page(np.random.default_rng(seed))) for seed in (1, 2)]


@pytest.mark.slow
def test_a_report_has_every_track_and_upscaler(truths: list[Truth]) -> None:
    report = measure(truths, {"bicubic": BICUBIC}, 4)
    assert set(report) == {"clean", "jpeg", "jpeg75", "camera", "webp"}
    scores = [report[track]["bicubic"]["psnr_db"] for track in ("clean", "jpeg", "camera")]
    assert scores[0] > scores[1] > 10
    assert scores[0] > scores[2] > 10
    assert 0 < report["clean"]["bicubic"]["acutance"] < 1


def test_tracks_are_the_same_on_every_run(truths: list[Truth]) -> None:
    for track in FILES:
        first, again = (make_small(track, truths[0].pixels, 4, "page1") for _ in range(2))
        assert first.file == again.file
    one, other = (make_small("camera", truths[0].pixels, 4, name) for name in "ab")
    assert one.file != other.file


def test_flat_error_is_0_for_a_kernel_and_counts_the_worst_level_else() -> None:
    assert flat_error_levels(BICUBIC) == 0
    assert flat_error_levels(lambda small: np.minimum(BICUBIC(small), 245)) == 10


def test_truths_are_cut_to_a_multiple_of_the_scale(tmp_path: Path) -> None:
    Image.linear_gradient("L").resize((11, 9)).save(tmp_path / "odd.png")
    assert read_truths(tmp_path, 4)[0].pixels.shape == (8, 8, 3)


def test_a_truth_of_one_colour_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (16, 16), "teal").save(tmp_path / "flat.png")
    with pytest.raises(ValueError, match="one colour"):
        read_truths(tmp_path, 4)


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no picture"):
        read_truths(tmp_path, 4)


def test_a_sheet_has_a_row_for_each_truth_and_track(truths: list[Truth]) -> None:
    sheet = draw_sheet(truths, {"bicubic": BICUBIC}, 4)
    assert sheet.size == (3 * 240, 2 * 5 * (240 + 16))
    assert np.asarray(sheet).std() > 10
