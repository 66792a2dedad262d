"""The official networks against the published code, to the last bit."""

import pytest
import torch

from tests.reference.standins import PublishedRealEsrgan
from upscaled_models.families import Family, Shape
from upscaled_models.families.compact import srvgg_shape
from upscaled_models.registry import ModelSpec, official_models
from upscaled_models.weights import build_network

pytestmark = pytest.mark.usefixtures("one_thread")

PARAMETERS = {
    "realesrgan-x4plus": 16_697_987,
    "realesrgan-x2plus": 16_703_171,
    "realesrnet-x4plus": 16_697_987,
    "realesrgan-x4plus-anime-6b": 4_467_779,
    "realesr-animevideov3": 621_424,
    "realesr-general-x4v3": 1_213_296,
    "realesr-general-wdn-x4v3": 1_213_296,
}
OTHERS: list[tuple[Family, Shape]] = [
    ("srvgg", srvgg_shape(upscale, num_conv=2, num_feat=8, act_type=act_type))
    for upscale in (1, 2, 3)
    for act_type in ("prelu", "leakyrelu", "relu")
]
# Each shape once: x4plus has that of realesrnet-x4plus, general-x4v3 that of its partner.
SHAPES = [*{str(spec.shape): (spec.family, spec.shape) for spec in official_models()}.values()]


@pytest.mark.parametrize(
    ("family", "shape"),
    [pytest.param(*SHAPES[0], marks=pytest.mark.slow), *SHAPES[1:], *OTHERS],
)
def test_output_is_the_published_networks_to_the_last_bit(
    family: Family, shape: Shape, published: PublishedRealEsrgan
) -> None:
    ours = build_network(family, shape).eval()
    kind = published.RRDBNet if family == "rrdb" else published.SRVGGNetCompact
    theirs = kind(**shape).eval()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    image = torch.rand(1, 3, 4, 6) if family == "rrdb" else torch.rand(2, 3, 17, 23)
    with torch.no_grad():
        assert torch.equal(ours(image), theirs(image))


@pytest.mark.parametrize("spec", official_models(), ids=lambda spec: spec.name)
def test_the_network_has_the_published_number_of_parameters(spec: ModelSpec) -> None:
    network = build_network(spec.family, spec.shape)
    assert sum(p.numel() for p in network.parameters()) == PARAMETERS[spec.name]


def test_an_unknown_activation_is_refused() -> None:
    with pytest.raises(ValueError, match="no activation 'gelu'"):
        build_network("srvgg", srvgg_shape(upscale=4, num_conv=1, act_type="gelu"))
