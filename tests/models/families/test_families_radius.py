"""`radius_px` against the networks themselves: nothing beyond it, and something at it."""

import pytest
import torch
from torch import Tensor, nn

from tests.models.specs import spec_of
from upscaled_models.families.compact import srvgg_shape
from upscaled_models.families.plain import plain_shape
from upscaled_models.families.realplksr import realplksr_shape
from upscaled_models.families.rrdb import rrdb_shape
from upscaled_models.families.span import span_shape
from upscaled_models.registry import ModelSpec, official_models
from upscaled_models.weights import build_network

pytestmark = pytest.mark.usefixtures("one_thread")

COMPACT = [
    spec
    for spec in official_models()
    if spec.name in ("realesr-animevideov3", "realesr-general-x4v3")
]


SMALL = [
    spec_of("tiny", "srvgg", srvgg_shape(upscale=2, num_conv=3, num_feat=4)),
    spec_of("tiny", "srvgg", srvgg_shape(upscale=3, num_conv=0, num_feat=4)),
    spec_of("tiny", "plain", plain_shape(scale=2, layers=2, features=4)),
    spec_of("tiny", "plain", plain_shape(scale=4, layers=0, features=4)),
    spec_of("tiny", "plain", plain_shape(scale=2, layers=2, features=4, fold=2)),
    spec_of("tiny", "span", span_shape(scale=2, features=4)),
    spec_of("tiny", "realplksr", realplksr_shape(2, 4, 2, 5, 2, norm="layer")),
    spec_of("tiny", "realplksr", realplksr_shape(4, 4, 1, 9, 2, norm="layer", attention="no")),
    spec_of("tiny", "rrdb", rrdb_shape(scale=4, num_block=1, num_feat=4, num_grow_ch=2)),
    spec_of("tiny", "rrdb", rrdb_shape(scale=4, num_block=2, num_feat=4, num_grow_ch=2)),
    spec_of("tiny", "rrdb", rrdb_shape(scale=2, num_block=1, num_feat=4, num_grow_ch=2)),
    spec_of("tiny", "rrdb", rrdb_shape(scale=1, num_block=1, num_feat=4, num_grow_ch=2)),
]


def describe(spec: ModelSpec) -> str:
    return "-".join(str(part) for part in (spec.family, *spec.shape.values()))


def network_of(spec: ModelSpec) -> nn.Module:
    torch.manual_seed(0)
    return build_network(spec.family, spec.shape).eval().double().requires_grad_(False)


def farthest(values: Tensor, centre_px: int) -> int:
    """Return the largest distance, along either axis, from the centre to a value that is not 0."""
    points = values.abs().amax(dim=(0, 1)).nonzero()
    return int((points - centre_px).abs().max())


@pytest.mark.parametrize("spec", [*COMPACT, *SMALL[:8]], ids=describe)
def test_one_changed_input_pixel_changes_no_output_beyond_the_radius(spec: ModelSpec) -> None:
    network = network_of(spec)
    side_px = (2 * spec.radius_px + 9) // spec.multiple_px * spec.multiple_px
    centre_px = side_px // 2
    image = torch.rand(1, 3, side_px, side_px, dtype=torch.float64)
    changed = image.clone()
    changed[..., centre_px, centre_px] = 1 - image[..., centre_px, centre_px]
    difference = network(changed) - network(image)
    assert difference.abs().max() > 0.01
    by_input_pixel = nn.functional.max_pool2d(difference.abs(), spec.native_scale)
    assert farthest(by_input_pixel, centre_px) <= spec.radius_px


@pytest.mark.parametrize("spec", [*COMPACT[:1], *SMALL], ids=describe)
def test_the_farthest_input_pixel_an_output_depends_on_is_the_radius_away(spec: ModelSpec) -> None:
    """Gradients show the smallest dependence, which rounding hides in a difference."""
    network = network_of(spec)
    side_px = 2 * spec.radius_px + 8 + spec.multiple_px * 2
    side_px -= side_px % spec.multiple_px
    middle_px = side_px // 2
    scale = spec.native_scale
    reached = []
    for centre_px in range(middle_px, middle_px + spec.multiple_px):
        image = torch.rand(1, 3, side_px, side_px, dtype=torch.float64, requires_grad=True)
        block = slice(centre_px * scale, (centre_px + 1) * scale)
        block_out = network(image)[..., block, block]
        (block_out * torch.rand_like(block_out)).sum().backward()
        assert image.grad is not None
        reached.append(farthest(image.grad, centre_px))
    assert max(reached) == spec.radius_px
