from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from models.errors import ModelRefused
from models.graphs.layers import common_grid
from models.graphs.nodes import LEVELS
from models.quantised import quantised_path, read_quantised, read_record, record_path
from models.quantising import prepare
from models.quantising.equalisation import equalise
from models.quantising.pictures import SIDE_PX, draw_pictures
from models.quantising.prepare import quantise, quantise_network, to_inputs
from models.quantising.proof import find_fault, prove, quantised_upscaler
from models.quantising.simulation import choose_ranges, freeze, simulate
from models.registry import Family, Shape, plain_shape, rrdb_shape, span_shape, srvgg_shape
from models.store import ModelStore
from models.weights import build_network

PLAIN = plain_shape(scale=4, layers=1, features=8)
COMPACT = srvgg_shape(upscale=2, num_conv=1, num_feat=8)
LARGE = rrdb_shape(scale=4, num_block=1, num_feat=8, num_grow_ch=4)

CHAINS: list[tuple[Family, Shape]] = [("plain", PLAIN), ("srvgg", COMPACT)]


def network_of(family: Family, shape: Shape) -> nn.Module:
    torch.manual_seed(2)
    return build_network(family, shape).requires_grad_(False).eval()


def few_pictures() -> np.ndarray:
    calibrated, _ = draw_pictures(None, seed=1)
    return calibrated[::8]


def ignore(done: int, total: int) -> None: ...


@pytest.mark.parametrize(("family", "shape"), [*CHAINS, ("rrdb", LARGE)])
def test_openvino_computes_what_was_simulated(family: Family, shape: Shape) -> None:
    network = network_of(family, shape)
    inputs = to_inputs(few_pictures())
    simulation = simulate(network)
    choose_ranges(simulation, inputs)
    upscale = quantised_upscaler(family, shape, freeze(simulation))
    for picture in few_pictures()[:2]:
        with torch.inference_mode():
            result = simulation(to_inputs(picture[None]))[0].clamp(0, 1) * LEVELS
        expected = result.permute(1, 2, 0).numpy()
        errors = np.abs(upscale(picture) - expected)
        # A value on the edge between two of 256 levels may fall to either side.
        assert errors.mean() < 0.3


@pytest.mark.parametrize(("family", "shape"), CHAINS)
def test_equalised_channels_give_the_same_picture(family: Family, shape: Shape) -> None:
    network = network_of(family, shape)
    inputs = to_inputs(few_pictures())
    equal = equalise(network, inputs)
    with torch.inference_mode():
        torch.testing.assert_close(equal(inputs), network(inputs), atol=1e-4, rtol=0)
    changed = [
        not torch.equal(one, other)
        for one, other in zip(equal.parameters(), network.parameters(), strict=True)
    ]
    assert any(changed)


@pytest.mark.slow
def test_tuning_brings_8_bits_nearer_to_the_network() -> None:
    network = network_of("plain", PLAIN)
    calibrated, held_out = draw_pictures(None, seed=3)
    before, after = (
        prove(
            "plain",
            PLAIN,
            quantise_network("plain", network, calibrated, steps=steps, seed=1, progress=ignore),
            network,
            list(held_out),
        )
        for steps in (0, 40)
    )
    assert after.psnr_db > before.psnr_db
    assert after.flat_largest == before.flat_largest == 0
    assert find_fault(after) == ""


def test_a_dense_blocks_convolutions_keep_one_grid_when_they_are_tuned() -> None:
    """OpenVINO then rounds what they read once, and not once for each of them."""
    network = network_of("rrdb", LARGE)
    layers = quantise_network("rrdb", network, few_pictures(), steps=2, seed=1, progress=ignore)
    block = [layer for name, layer in layers.convolutions.items() if "rdb2" in name]
    assert len(block) == 5
    assert common_grid(block) is not None
    assert common_grid([*block, layers.convolutions["conv_body"]]) is None


def test_pictures_to_prove_by_are_none_of_those_calibrated_with(tmp_path: Path) -> None:
    calibrated, held_out = draw_pictures(None, seed=1)
    assert calibrated.shape[1:] == held_out.shape[1:] == (SIDE_PX, SIDE_PX, 3)
    assert not any((calibrated == picture).all((1, 2, 3)).any() for picture in held_out)
    flat = [picture for picture in calibrated if (picture == picture[0, 0]).all()]
    assert {tuple(picture[0, 0].tolist()) for picture in flat} >= {(0, 0, 0), (255, 255, 255)}
    with pytest.raises(ValueError, match="holds no picture"):
        draw_pictures(tmp_path, seed=1)


def test_a_shipped_model_is_quantised_beside_its_weights(store: ModelStore) -> None:
    spec = store.find("upscaled-x4")
    weights = store.target(spec)
    said: list[str] = []
    record = quantise(spec, weights, None, steps=1, say=said.append, progress=ignore)
    assert record.weights_sha256 == spec.sha256
    assert record.size_bytes == quantised_path(weights).stat().st_size
    assert read_record(spec, weights) == record
    assert read_quantised(spec, weights).convolutions.keys() == {"head", "body.0", "tail"}
    assert any("dB against float32" in line for line in said)


def test_what_is_not_near_enough_is_not_written(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = store.find("upscaled-x4")
    monkeypatch.setattr(prepare, "find_fault", lambda proof: "31.0 dB against float32")
    with pytest.raises(ModelRefused, match="upscaled-x4 is not usable in 8 bits"):
        quantise(spec, store.target(spec), None, steps=0, say=print, progress=ignore)
    assert not quantised_path(store.target(spec)).exists()
    assert not record_path(store.target(spec)).exists()


def test_another_networks_8_bits_are_refused() -> None:
    network, other = network_of("plain", PLAIN), network_of("plain", PLAIN)
    other.get_parameter("tail.weight").mul_(20)
    layers = quantise_network("plain", network, few_pictures(), steps=0, seed=1, progress=ignore)
    _, held_out = draw_pictures(None, seed=1)
    assert find_fault(prove("plain", PLAIN, layers, network, held_out[:2])) == ""
    assert "dB against float32" in find_fault(prove("plain", PLAIN, layers, other, held_out[:2]))


def test_a_network_that_is_not_prepared_in_8_bits_is_refused_by_its_family(
    store: ModelStore, tmp_path: Path
) -> None:
    file = tmp_path / "theirs.pth"
    torch.save(build_network("span", span_shape(scale=2, features=4)).state_dict(), file)
    spec = store.add("theirs", file)
    with pytest.raises(ModelRefused, match="theirs: span networks are not prepared in 8 bits"):
        quantise(spec, store.target(spec), None, steps=0, say=print, progress=ignore)
