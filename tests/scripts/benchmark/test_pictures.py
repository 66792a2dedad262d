"""The pictures that the service is measured with."""

import io

import numpy as np
import pytest
from PIL import Image

from scripts.benchmark.pictures import CONTENT_SHARE, make_picture


@pytest.mark.parametrize("has_alpha", [False, True])
def test_a_product_fills_its_share_of_the_picture_and_the_rest_is_empty(has_alpha: bool) -> None:
    with Image.open(io.BytesIO(make_picture(600, has_alpha=has_alpha, is_product=True))) as product:
        pixels = np.asarray(product)
    is_empty = pixels[..., 3] == 0 if has_alpha else (pixels == 255).all(axis=2)
    assert pixels.shape == (600, 600, 4 if has_alpha else 3)
    assert is_empty.mean() == pytest.approx(1 - CONTENT_SHARE, abs=0.05)
    assert not is_empty[200:400, 200:400].any()


def test_a_full_picture_with_alpha_is_opaque_everywhere() -> None:
    with Image.open(io.BytesIO(make_picture(90, has_alpha=True))) as full:
        assert full.mode == "RGBA"
        assert (np.asarray(full)[..., 3] == 255).all()
