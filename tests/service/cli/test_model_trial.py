"""`upscaled models try`, through the real pipeline with a shipped model."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from tests.service.cli.invoking import invoke
from upscaled.cli.model_trial import MOST_SIDE_PX, cut_middle
from upscaled.image.types import Image
from upscaled_models.store import ModelStore


def try_model(data_dir: Path, *words: str) -> tuple[int, str, str]:
    """(exit status, standard output, standard error) of `upscaled models try ...`."""
    settings = {
        "UPSCALED_DATA_DIR": str(data_dir),
        "UPSCALED_PRECISION": "exact",
        "UPSCALED_DEVICE": "cpu",
        "UPSCALED_PACKAGED_MODELS": "false",
    }
    result = invoke("models", "try", *words, env=settings)
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    rows, columns = np.mgrid[0:24, 0:40]
    pixels = np.stack([columns * 6, rows * 10, (rows + columns) % 7 * 30], axis=-1)
    path = tmp_path / "photo.png"
    Pillow.fromarray(pixels.astype(np.uint8)).save(path)
    return path


def test_a_sheet_is_drawn_at_the_models_own_scale(
    photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    status, printed, said = try_model(tmp_path, "upscaled-x2", str(photo))
    assert (status, printed) == (0, "photo-upscaled-x2-x2.png\n")
    assert said.startswith("upscaled-x2, x2: photo.png (40x24) in ")
    assert said.endswith(" s by torch float32\n")
    with Pillow.open(tmp_path / "photo-upscaled-x2-x2.png") as sheet:
        left, right = (np.asarray(sheet)[48 : 48 + 48, at : at + 80] for at in (0, 648))
    assert 0 < np.abs(left.astype(int) - right).mean() < 20

    status, _, said = try_model(tmp_path, "upscaled-x2", str(photo))
    assert status == 1
    assert "photo-upscaled-x2-x2.png is there already; `-o photo-upscaled-x2-x2.png` repl" in said


def test_a_sheet_that_is_named_by_an_option_is_replaced(photo: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.jpg"
    sheet.write_bytes(b"")
    words = ("upscaled-x4-faithful", str(photo), "--scale", "2", "-o", str(sheet))
    assert try_model(tmp_path, *words)[0] == 0
    with Pillow.open(sheet) as opened:
        assert opened.format == "JPEG"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("no-such-model", "photo.png"), "there is no model 'no-such-model'"),
        (("upscaled-x2", "/dev/zero"), "/dev/zero: "),
        (("upscaled-x2", "none.png"), "No such file"),
        (("upscaled-x2", "text.png", "-o", "sheet.png"), "text.png: "),
        (("upscaled-x2", "photo.png", "-o", "sheet.gif"), "the sheet is a .png or a .jpg file"),
        (("upscaled-x2", "photo.png", "-o", "none/sheet.png"), "none: there is no such folder"),
    ],
)
def test_a_trial_that_is_not_possible_is_refused_in_a_sentence(
    words: tuple[str, ...],
    reason: str,
    photo: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.png").write_text("no picture")
    status, printed, said = try_model(tmp_path, *words)
    assert (status, printed) == (1, "")
    assert said.startswith("upscaled: ")
    assert len(said.splitlines()) == 1
    assert reason in said


def test_a_file_that_is_not_here_is_named_with_the_way_to_get_it(
    photo: Path, tmp_path: Path
) -> None:
    result = invoke(
        "models",
        "try",
        "realesrgan-x2plus",
        str(photo),
        "-o",
        str(tmp_path / "sheet.png"),
        env={"UPSCALED_DATA_DIR": str(tmp_path), "UPSCALED_DEVICE": "cpu"},
    )
    assert "upscaled models fetch realesrgan-x2plus" in result.stderr + str(result.exception)
    assert not (tmp_path / "sheet.png").exists()
    assert not list(ModelStore(tmp_path / "models").models_dir.glob("*.part"))


@pytest.mark.parametrize(
    ("size", "cut"),
    [
        ((MOST_SIDE_PX, MOST_SIDE_PX), (MOST_SIDE_PX, MOST_SIDE_PX)),
        ((MOST_SIDE_PX + 2, 7), (MOST_SIDE_PX, 7)),
        ((9, 3 * MOST_SIDE_PX), (9, MOST_SIDE_PX)),
    ],
)
def test_only_the_middle_of_a_large_photo_is_tried(
    size: tuple[int, int], cut: tuple[int, int]
) -> None:
    rgb = np.zeros((*size, 3), np.uint8)
    rgb[size[0] // 2, size[1] // 2] = 200
    part = cut_middle(Image(rgb, alpha=rgb[..., 0]))
    assert part.rgb.shape[:2] == cut
    assert part.alpha is not None
    assert part.alpha.shape == cut
    assert part.rgb[cut[0] // 2, cut[1] // 2].tolist() == [200, 200, 200]
