"""scripts/evaluate: a table for people, and one JSON document as the last line."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import models.default
from models.evaluation.command import main
from models.training.drawing import draw_page


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    page = draw_page(np.random.default_rng(5))[:96, :128]
    Image.fromarray(page).save(tmp_path / "page.png")
    return tmp_path


def call(*arguments: str | Path) -> None:
    main([*map(str, arguments), "--threads", "1"])


def document(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    last: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return last


def test_a_default_model_is_measured_by_name(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet = folder / "sheets" / "sheet.png"
    sheet.parent.mkdir()
    call("upscaled-x2", "--truth", folder, "--scale", "2", "--sheet", sheet)
    found = document(capsys)
    clean = found["tracks"]["clean"]
    assert found["pictures"] == 1
    assert clean["upscaled-x2"]["psnr_db"] > clean["bicubic"]["psnr_db"]
    assert found["flat_error_levels"] == {"upscaled-x2": 0}
    with Image.open(sheet) as drawn:
        assert drawn.size == (5 * 240, 3 * 256)


def test_a_file_of_native_scale_4_also_serves_x2_by_area(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = Path(models.default.__file__).parent / "upscaled-x4.safetensors"
    call(file, "--truth", folder, "--scale", "2")
    clean = document(capsys)["tracks"]["clean"]
    assert clean["upscaled-x4"]["psnr_db"] > clean["bicubic"]["psnr_db"] - 2


def test_a_x2_model_cannot_be_measured_at_x4(folder: Path) -> None:
    with pytest.raises(SystemExit, match="x2 model"):
        call("upscaled-x2", "--truth", folder, "--scale", "4")


def test_only_named_truths_are_shown_on_the_sheet(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(draw_page(np.random.default_rng(6))[:96, :96]).save(folder / "other.png")
    sheet = folder / "sheet.dir"
    sheet.mkdir()
    call(
        "upscaled-x2",
        "--truth",
        folder,
        "--scale",
        "2",
        "--sheet",
        sheet / "s.png",
        "--only",
        "page",
    )
    with Image.open(sheet / "s.png") as drawn:
        assert drawn.height == 3 * 256


def test_8_bits_are_held_against_their_own_float32(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call("upscaled-x2", "--truth", folder, "--scale", "2", "--int8")
    found = document(capsys)
    clean = found["tracks"]["clean"]
    assert 40 < found["int8_psnr_db"]["upscaled-x2"] < 80
    assert abs(clean["upscaled-x2"]["psnr_db"] - clean["upscaled-x2 int8"]["psnr_db"]) < 0.5
    assert found["flat_error_levels"]["upscaled-x2 int8"] == 0
