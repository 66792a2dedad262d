"""RealPLKSR against its published code, in every form that its files have."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.reference.standins import PublishedCommunity
from upscaled_models.families.realplksr import realplksr_shape
from upscaled_models.weights import build_network, read_state, recognise_file

pytestmark = pytest.mark.usefixtures("one_thread")

FORMS: list[dict[str, Any]] = [
    {"scale": 4, "norm": "group", "attention": "yes", "upsampler": "pixelshuffle"},
    {"scale": 2, "norm": "group", "attention": "no", "upsampler": "pixelshuffle"},
    {"scale": 4, "norm": "layer", "attention": "yes", "upsampler": "pixelshuffle"},
    {"scale": 4, "norm": "group", "attention": "yes", "upsampler": "dysample"},
    {"scale": 2, "norm": "layer", "attention": "no", "upsampler": "dysample"},
    {"scale": 3, "norm": "layer", "attention": "yes", "upsampler": "dysample"},
    {"scale": 1, "norm": "group", "attention": "yes", "upsampler": "dysample"},
]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: "-".join(map(str, form.values())))
def test_output_is_the_published_networks_to_the_last_bit(
    form: dict[str, Any], community: PublishedCommunity, tmp_path: Path
) -> None:
    torch.manual_seed(3)
    theirs = community.RealPLKSR(
        dim=16,
        n_blocks=2,
        upscaling_factor=form["scale"],
        kernel_size=7,
        split_ratio=0.25,
        use_ea=form["attention"] == "yes",
        dysample=form["upsampler"] == "dysample",
        layer_norm=form["norm"] == "layer",
    ).eval()
    for value in theirs.parameters():
        nn.init.normal_(value, std=0.15)
    path = tmp_path / "theirs.pth"
    torch.save({"params": theirs.state_dict()}, path)
    family, shape = recognise_file(path)
    size: dict[str, Any] = {"features": 16, "blocks": 2, "kernel_px": 7, "wide_features": 4}
    assert (family, shape) == ("realplksr", realplksr_shape(**size, **form))
    ours = build_network(family, shape).eval()
    ours.load_state_dict(read_state(path.read_bytes(), path))
    image = torch.rand(2, 3, 17, 21)
    with torch.no_grad():
        got, expected = ours(image), theirs(image)
    assert expected.abs().max() > 0.5
    assert torch.equal(got, expected)


@pytest.mark.parametrize("norm", ["group", "layer"])
@pytest.mark.parametrize("upsampler", ["pixelshuffle", "dysample"])
def test_shorter_weights_keep_the_sum_and_the_places_in_the_images_precision(
    norm: str, upsampler: str
) -> None:
    """Places of a window 300 px wide would be off by more than a pixel in bfloat16."""
    torch.manual_seed(0)
    shape = realplksr_shape(2, 8, 2, 5, 4, norm=norm, upsampler=upsampler)
    network = build_network("realplksr", shape).eval()
    image = torch.rand(1, 3, 8, 300)
    with torch.no_grad():
        right, short = network(image), network.bfloat16()(image)
    assert short.dtype == torch.float32
    assert (short - right).norm() < 0.01 * right.norm()


def test_group_normalisation_sees_the_whole_picture_and_layer_normalisation_does_not() -> None:
    image = torch.rand(1, 3, 64, 64)
    brighter = image.clone()
    brighter[..., 40:] = 1.0
    changes = {}
    for norm in ("group", "layer"):
        torch.manual_seed(0)
        network = build_network("realplksr", realplksr_shape(2, 8, 1, 5, 4, norm=norm)).eval()
        with torch.no_grad():
            difference = (network(brighter) - network(image)).abs()
        changes[norm] = float(difference[..., :60].max())
    assert changes["group"] > 1e-3
    assert changes["layer"] == 0
