import pytest

from upscaled_models.families import Family, Shape, UnknownArchitecture, recognise
from upscaled_models.families.compact import srvgg_shape
from upscaled_models.families.plain import plain_shape
from upscaled_models.families.realplksr import realplksr_shape
from upscaled_models.families.rrdb import rrdb_shape
from upscaled_models.families.span import span_shape
from upscaled_models.registry import official_models
from upscaled_models.weights import build_network

SHAPES: list[tuple[Family, Shape]] = [
    *((spec.family, spec.shape) for spec in official_models() if spec.shape.get("num_block") != 23),
    ("rrdb", rrdb_shape(scale=4, num_block=1, num_feat=8, num_grow_ch=4)),
    ("rrdb", rrdb_shape(scale=2, num_block=2, num_feat=8, num_grow_ch=4)),
    ("rrdb", rrdb_shape(scale=1, num_block=12, num_feat=8, num_grow_ch=6)),
    ("srvgg", srvgg_shape(upscale=1, num_conv=1, num_feat=8)),
    ("srvgg", srvgg_shape(upscale=2, num_conv=3, num_feat=24)),
    ("srvgg", srvgg_shape(upscale=3, num_conv=10, num_feat=8, act_type="leakyrelu")),
    ("srvgg", srvgg_shape(upscale=4, num_conv=0, num_feat=8)),
    ("plain", plain_shape(scale=2, layers=3, features=8)),
    ("plain", plain_shape(scale=2, layers=3, features=8, fold=2)),
    ("plain", plain_shape(scale=1, layers=0, features=4, fold=2)),
    ("plain", plain_shape(scale=4, layers=12, features=8)),
    ("span", span_shape(scale=2, features=52)),
    ("span", span_shape(scale=4, features=8)),
    ("realplksr", realplksr_shape(scale=4, features=8, blocks=12, kernel_px=5, wide_features=2)),
    ("realplksr", realplksr_shape(2, 7, 1, 3, 7, "layer", "no", "dysample")),
    ("realplksr", realplksr_shape(8, 4, 2, 1, 1, "group", "no", "pixelshuffle")),
]


def sizes_of(family: Family, shape: Shape) -> dict[str, tuple[int, ...]]:
    state = build_network(family, shape).state_dict()
    return {key: tuple(value.shape) for key, value in state.items()}


@pytest.mark.parametrize(("family", "shape"), SHAPES)
def test_a_network_is_recognised_by_its_weights_alone(family: Family, shape: Shape) -> None:
    assert recognise(sizes_of(family, shape)) == (family, shape)


def test_activations_without_weights_count_as_leaky_ones() -> None:
    sizes = sizes_of("srvgg", srvgg_shape(upscale=4, num_conv=2, act_type="relu"))
    assert recognise(sizes)[1]["act_type"] == "leakyrelu"


@pytest.mark.parametrize(
    ("sizes", "reason"),
    [
        ({}, "none"),
        ({"model.0.weight": (64, 3, 3, 3)}, r"model\.0\.weight"),
        ({"conv_first.weight": (64, 3, 3, 3)}, r"body\.0\.rdb1\.conv1\.weight is None"),
        ({"conv_first.weight": (64,)}, r"conv_first\.weight is \(64,\)"),
        ({"body.0.weight": (64, 3, 3, 3)}, r"last layer is body\.0"),
        ({"body.0.weight": (64, 3, 3, 3), "body.3.weight": (48, 64, 3, 3)}, r"body\.3"),
        ({"body.0.weight": (64, 1, 3, 3), "body.2.weight": (48, 64, 3, 3)}, "1 channels in"),
        ({"body.0.weight": (64, 3, 3, 3), "body.2.weight": (47, 64, 3, 3)}, "47 channels out"),
        ({"body.0.weight": (64, 3, 3, 3), "body.2.weight": (24, 64, 3, 3)}, "no whole scale"),
        ({"body.0.weight": (64, 3, 3, 3), "body.2.weight": (0, 64, 3, 3)}, "no whole scale"),
        ({"body.0.weight": (4097, 3, 3, 3), "body.2.weight": (48, 64, 3, 3)}, "num_feat 4097"),
        ({"head.weight": (0, 12, 3, 3), "tail.weight": (48, 0, 3, 3)}, "features 0"),
        ({"head.weight": (8, 12, 3, 3), "tail.weight": (5, 8, 3, 3)}, "no whole scale"),
        ({"head.weight": (8, 3, 3, 3), "tail.weight": (48, 8, 3, 3)}, "3 channels in and 48 out"),
        ({"head.weight": (8, 24, 3, 3), "tail.weight": (48, 8, 3, 3)}, "24 channels in and 48"),
        ({"head.weight": (8, 48, 3, 3), "tail.weight": (27, 8, 3, 3)}, "48 channels in and 27"),
        ({"head.weight": (8, 108, 3, 3), "tail.weight": (27, 8, 3, 3)}, "cannot have fold 3"),
        (
            {
                "block_1.c1_r.weight": (8, 8, 3, 3),
                "conv_cat.weight": (8, 32, 1, 1),
                "conv_1.weight": (8, 1, 3, 3),
                "upsampler.0.weight": (48, 8, 3, 3),
            },
            "a SPAN network of 1 channels in",
        ),
    ],
)
def test_weights_of_no_known_network_are_refused_with_the_reason(
    sizes: dict[str, tuple[int, ...]], reason: str
) -> None:
    with pytest.raises(UnknownArchitecture, match=reason):
        recognise(sizes)


@pytest.mark.parametrize(("num_in", "num_out"), [(4, 3), (3, 4), (27, 3)])
def test_an_rrdb_network_of_other_than_three_colours_is_refused(num_in: int, num_out: int) -> None:
    sizes = sizes_of("rrdb", rrdb_shape(scale=4, num_block=1, num_feat=8, num_grow_ch=4))
    sizes["conv_first.weight"] = (8, num_in, 3, 3)
    sizes["conv_last.weight"] = (num_out, 8, 3, 3)
    with pytest.raises(UnknownArchitecture, match=f"{num_in} channels in and {num_out} out"):
        recognise(sizes)


@pytest.mark.parametrize(
    ("key", "size", "reason"),
    [
        ("feats.0.weight", (8, 1, 3, 3), "a RealPLKSR network of 1 channels in"),
        ("feats.4.weight", (13, 8, 3, 3), "13 channels out"),
        ("feats.1.lk.conv.weight", (4, 4, 4, 4), "cannot have kernel_px 4"),
        ("feats.1.lk.conv.weight", (4, 4, 65, 65), "cannot have kernel_px 65"),
        ("feats.1.lk.conv.weight", (9, 9, 5, 5), "cannot have wide_features 9 of 8 features"),
        ("feats.1.lk.conv.weight", (4,), "not a convolution's four sizes"),
        ("feats.0.weight", (10, 3, 3, 3), "cannot have 10 features in 4 groups"),
    ],
)
def test_a_realplksr_network_that_cannot_be_is_refused(
    key: str, size: tuple[int, ...], reason: str
) -> None:
    sizes = sizes_of("realplksr", realplksr_shape(2, 8, 2, 5, 4))
    sizes["feats.4.weight"] = (12, 8, 3, 3)
    sizes[key] = size
    with pytest.raises(UnknownArchitecture, match=reason):
        recognise(sizes)
