from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scripts.benchmark.contestant import Absent, Entry
from scripts.benchmark.others import load_published, open_ncnn, run_ncnn
from tests.reference.standins import import_published
from upscaled_models.families.compact import srvgg_shape
from upscaled_models.families.rrdb import rrdb_shape


@pytest.fixture(scope="module")
def published() -> Any:
    try:
        return import_published()
    except ImportError as error:
        pytest.skip(f"tests/reference/requirements.lock is not installed: {error}")


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        ("SRVGGNetCompact", srvgg_shape(4, 2, num_feat=8)),
        ("RRDBNet", rrdb_shape(4, num_block=2, num_feat=8, num_grow_ch=4)),
    ],
)
def test_ncnn_makes_the_same_picture_of_any_size(
    published: Any, kind: str, shape: dict[str, Any]
) -> None:
    pytest.importorskip("pnnx", reason="ncnn's converter is not installed")
    torch.manual_seed(0)
    network = getattr(published, kind)(**shape).eval()
    net = open_ncnn(network)
    for height_px, width_px in ((12, 20), (40, 36)):
        picture = torch.rand(3, height_px, width_px)
        with torch.inference_mode():
            ours = network(picture[None])[0].numpy()
        np.testing.assert_allclose(run_ncnn(net, picture.numpy()), ours, atol=2e-3)


@pytest.mark.usefixtures("published")
def test_a_network_that_the_package_does_not_have_is_absent(tmp_path: Path) -> None:
    with pytest.raises(Absent, match="realesrgan has no plain network"):
        load_published(Entry("others:Ncnn", str(tmp_path), "upscaled-x4-faithful"))
