import pytest

from upscaled_models.families import FAMILIES, Family, Shape, check_shape
from upscaled_models.families.compact import srvgg_shape
from upscaled_models.families.plain import plain_shape
from upscaled_models.families.realplksr import realplksr_shape
from upscaled_models.families.rrdb import rrdb_shape


@pytest.mark.parametrize(
    ("num_block", "halo_px"), [(1, 19), (2, 34), (3, 44), (6, 44), (7, 60), (23, 60), (40, 60)]
)
def test_an_rrdb_networks_halo_is_that_of_the_measured_one_that_is_at_least_as_deep(
    num_block: int, halo_px: int
) -> None:
    shape = rrdb_shape(scale=4, num_block=num_block)
    assert FAMILIES["rrdb"].halo_px(shape) == halo_px


@pytest.mark.parametrize(
    ("family", "change"),
    [
        ("rrdb", {"scale": 3}),
        ("rrdb", {"scale": 0}),
        ("rrdb", {"num_block": -1}),
        ("rrdb", {"num_block": 4097}),
        ("srvgg", {"upscale": 0}),
        ("srvgg", {"num_feat": 0}),
        ("srvgg", {"num_conv": "16"}),
        ("srvgg", {"num_conv": True}),
        ("srvgg", {"act_type": "gelu"}),
        ("srvgg", {"act_type": 1}),
        ("srvgg", {"dilation": 2}),
        ("plain", {"layers": -1}),
        ("plain", {"features": 4097}),
        ("plain", {"fold": 0}),
        ("plain", {"fold": 3}),
        ("plain", {"fold": "2"}),
        ("span", {"features": 0}),
        ("span", {"norm": "group"}),
        ("realplksr", {"blocks": 0}),
        ("realplksr", {"kernel_px": 65}),
        ("realplksr", {"kernel_px": 16}),
        ("realplksr", {"wide_features": 65}),
        ("realplksr", {"features": 62}),
        ("realplksr", {"norm": "batch"}),
        ("realplksr", {"attention": True}),
        ("realplksr", {"upsampler": "nearest+conv"}),
    ],
)
def test_an_impossible_shape_is_refused(family: Family, change: dict[str, int | str]) -> None:
    whole = FAMILIES[family].example
    check_shape(family, whole)
    with pytest.raises(ValueError, match=f"{family} (cannot have|takes)"):
        check_shape(family, {**whole, **change})


@pytest.mark.parametrize("number", [0, 4096])
def test_a_shape_at_its_limits_is_accepted(number: int) -> None:
    check_shape("srvgg", srvgg_shape(upscale=4, num_conv=number))
    check_shape("plain", plain_shape(scale=1, layers=number, features=4096))


def test_an_argument_that_was_added_later_may_be_left_out() -> None:
    """Records of plain networks were written before any network folded."""
    whole = plain_shape(scale=2, layers=1, features=4)
    check_shape("plain", whole)
    for fold in (1, 2):
        check_shape("plain", {**whole, "fold": fold})
    assert plain_shape(scale=2, layers=1, features=4, fold=1) == whole
    with pytest.raises(ValueError, match="plain takes features, layers, scale, perhaps fold"):
        check_shape("plain", {"features": 4, "layers": 1, "fold": 1})


@pytest.mark.parametrize("kernel_px", [1, 63])
def test_a_large_kernel_at_its_limits_is_accepted_on_all_channels(kernel_px: int) -> None:
    check_shape("realplksr", realplksr_shape(2, 8, 4096, kernel_px, wide_features=8))
    check_shape("realplksr", realplksr_shape(2, 7, 1, kernel_px, wide_features=1, norm="layer"))


@pytest.mark.parametrize(
    ("shape", "radius_px", "halo_px"),
    [
        (realplksr_shape(scale=4), 28 * 11 + 2, 48),
        (realplksr_shape(4, blocks=4, upsampler="dysample"), 47, 47),
        (realplksr_shape(4, blocks=4, kernel_px=19), 50, 48),
        (realplksr_shape(4, blocks=4, attention="no"), 42, 42),
    ],
)
def test_the_halo_of_a_realplksr_network_is_its_radius_up_to_a_limit(
    shape: Shape, radius_px: int, halo_px: int
) -> None:
    family = FAMILIES["realplksr"]
    assert (family.radius_px(shape), family.halo_px(shape)) == (radius_px, halo_px)
