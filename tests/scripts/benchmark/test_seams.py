from pathlib import Path

import pytest

from scripts.benchmark.effort import CUDA, FULL, Effort
from upscaled.config import Settings
from upscaled.upscale.engines import choose_window_px
from upscaled_models.store import ModelStore


@pytest.mark.parametrize(("effort", "is_cuda"), [(FULL, False), (CUDA, True)])
def test_pictures_for_seams_take_several_windows(
    effort: Effort, is_cuda: bool, tmp_path: Path
) -> None:
    """Else there is nothing to compare, which shows only after all else was measured."""
    store, exact = ModelStore(tmp_path), Settings(precision="exact")
    for name, sides_px in (
        ("realesr-general-x4v3", effort.seams_px),
        ("upscaled-x4", effort.seams_px),
        ("realesrgan-x4plus", effort.rrdb_seams_px),
    ):
        window_px = choose_window_px(exact, store.find(name), is_cuda=is_cuda)
        assert max(sides_px) > window_px
