import pytest
import torch

from tests.reference.standins import PublishedRealEsrgan
from upscaled_models.families.compact import srvgg_shape
from upscaled_models.registry import ModelSpec, official_models
from upscaled_models.weights import build_network

pytestmark = pytest.mark.usefixtures("one_thread")

SRVGG = [spec for spec in official_models() if spec.family == "srvgg"]
PUBLISHED_PARAMETERS = {
    "realesr-animevideov3": 621_424,
    "realesr-general-x4v3": 1_213_296,
    "realesr-general-wdn-x4v3": 1_213_296,
}


def assert_equal_to_published(shape: dict[str, int | str], published: PublishedRealEsrgan) -> None:
    ours = build_network("srvgg", shape).eval()
    theirs = published.SRVGGNetCompact(**shape).eval()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    image = torch.rand(2, 3, 17, 23)
    with torch.no_grad():
        assert torch.equal(ours(image), theirs(image))


@pytest.mark.parametrize("spec", SRVGG, ids=lambda spec: spec.name)
def test_output_is_the_published_networks_to_the_last_bit(
    spec: ModelSpec, published: PublishedRealEsrgan
) -> None:
    assert_equal_to_published(dict(spec.shape), published)


@pytest.mark.parametrize("act_type", ["prelu", "leakyrelu", "relu"])
@pytest.mark.parametrize("upscale", [1, 2, 3])
def test_other_shapes_are_the_published_networks_too(
    upscale: int, act_type: str, published: PublishedRealEsrgan
) -> None:
    shape = srvgg_shape(upscale=upscale, num_conv=2, num_feat=8, act_type=act_type)
    assert_equal_to_published(dict(shape), published)


@pytest.mark.parametrize("spec", SRVGG, ids=lambda spec: spec.name)
def test_the_network_has_the_published_number_of_parameters(spec: ModelSpec) -> None:
    network = build_network(spec.family, spec.shape)
    assert sum(p.numel() for p in network.parameters()) == PUBLISHED_PARAMETERS[spec.name]


def test_an_unknown_activation_is_refused() -> None:
    with pytest.raises(ValueError, match="no activation 'gelu'"):
        build_network("srvgg", srvgg_shape(upscale=4, num_conv=1, act_type="gelu"))
