from pathlib import Path
from typing import Any

import pytest

from scripts.benchmark.batch import measure_batch
from scripts.benchmark.effort import QUICK


@pytest.mark.slow
def test_a_batch_of_files_is_held_to_the_network_alone(tmp_path: Path) -> None:
    figures: Any = measure_batch(tmp_path, QUICK, "cpu")
    pairs = list(zip(figures["network_s"], figures["batch_s"], strict=True))
    ratios = [network / batch for network, batch in pairs]
    assert min(ratios) * 0.9 <= figures["ratio"] <= max(ratios) * 1.1
    assert figures["cpu_ratio"] > 0
    assert 0.9 < figures["images_per_s"] * min(figures["batch_s"]) / figures["images"] < 1.1
    assert len(list((tmp_path / "batch-0").glob("*-x4.jpg"))) == figures["images"] == 4
