"""Pictures: what is read from a folder, and what is drawn."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scripts.training.pictures import load_pictures
from upscaled_models.quantise.drawing import draw_page
from upscaled_models.quantise.pictures import read_rgb


def test_photos_are_kept_at_several_sizes_and_small_ones_left_out(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    for name, side in (("large.png", 100), ("small.jpg", 70)):
        Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(tmp_path / name)
    (tmp_path / "LICENSES.tsv").write_text("not a picture")
    pictures = load_pictures(tmp_path, drawn=2, seed=1, least_side_px=64)
    assert [photo.shape[0] for photo in pictures.photos] == [100, 80, 70]
    assert len(pictures.drawn) == 2


def test_a_folder_without_photos_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no photo"):
        load_pictures(tmp_path, drawn=0, seed=1, least_side_px=64)


def test_transparency_is_laid_over_white(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert (read_rgb(tmp_path / "clear.png") == 255).all()


def test_a_page_is_the_same_for_the_same_seed_and_has_fine_detail() -> None:
    first, again, other = (draw_page(np.random.default_rng([1, n])) for n in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.shape == (384, 384, 3)
    assert np.abs(np.diff(first.astype(int), axis=1)).max() > 100
