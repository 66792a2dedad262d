from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from tests.models.specs import spec_of
from upscaled_models.backends.openvino.layers import common_grid
from upscaled_models.backends.openvino.nodes import LEVELS
from upscaled_models.errors import ModelRefused
from upscaled_models.families import FAMILIES, Family, Shape
from upscaled_models.families.compact import srvgg_shape
from upscaled_models.families.plain import plain_shape
from upscaled_models.families.rrdb import rrdb_shape
from upscaled_models.families.span import span_shape
from upscaled_models.quantise import comparison, prepare, record
from upscaled_models.quantise.comparison import (
    decibels,
    float_upscaler,
    measure_quantised,
    quantised_upscaler,
)
from upscaled_models.quantise.files import quantised_path, read_quantised, read_record, record_path
from upscaled_models.quantise.forms import find_forms, find_levels
from upscaled_models.quantise.pictures import SIDE_PX, draw_pictures, draw_truths
from upscaled_models.quantise.prepare import quantise, to_inputs, tune_network
from upscaled_models.quantise.record import TRACKS, QuantisedAccuracy, why_not
from upscaled_models.quantise.rounding import InputLevels, round_layers
from upscaled_models.quantise.simulation import choose_ranges, equalise, freeze, simulate
from upscaled_models.store import ModelStore
from upscaled_models.weights import build_network, state_of

PLAIN = plain_shape(scale=4, layers=1, features=8)
COMPACT = srvgg_shape(upscale=2, num_conv=1, num_feat=8)
LARGE = rrdb_shape(scale=4, num_block=1, num_feat=8, num_grow_ch=4)

FOLDED = plain_shape(scale=2, layers=1, features=8, fold=2)

CHAINS: list[tuple[Family, Shape]] = [("plain", PLAIN), ("plain", FOLDED), ("srvgg", COMPACT)]


def network_of(family: Family, shape: Shape) -> nn.Module:
    torch.manual_seed(2)
    return build_network(family, shape).requires_grad_(False).eval()


@pytest.fixture(scope="module")
def drawn() -> tuple[np.ndarray, np.ndarray]:
    """Pictures to calibrate with, and held-out ones; drawing them takes a second."""
    return draw_pictures(None, seed=1)


@pytest.fixture(scope="module")
def few_pictures(drawn: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    return drawn[0][::8]


def ignore(done: int, total: int) -> None: ...


@pytest.mark.parametrize(("family", "shape"), CHAINS)
def test_openvino_computes_what_was_simulated(
    family: Family, shape: Shape, few_pictures: np.ndarray
) -> None:
    network = network_of(family, shape)
    inputs = to_inputs(few_pictures)
    simulation = simulate(network)
    choose_ranges(simulation, inputs)
    upscale = quantised_upscaler(family, shape, freeze(simulation))
    for picture in few_pictures[:2]:
        with torch.inference_mode():
            result = simulation(to_inputs(picture[None]))[0].clamp(0, 1) * LEVELS
        expected = result.permute(1, 2, 0).numpy()
        errors = np.abs(upscale(picture) - expected)
        # A value on the edge between two of 256 levels may fall to either side.
        assert errors.mean() < 0.3


@pytest.mark.parametrize(("family", "shape"), CHAINS)
def test_equalised_channels_give_the_same_picture(
    family: Family, shape: Shape, few_pictures: np.ndarray
) -> None:
    network = network_of(family, shape)
    inputs = to_inputs(few_pictures)
    equal = equalise(network, inputs, 0.5)
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
        measure_network("plain", PLAIN, network, network, calibrated, held_out, steps)
        for steps in (0, 40)
    )
    assert after.psnr_db > before.psnr_db
    assert after.flat_largest == before.flat_largest == 0
    assert not why_not(after, "fast")


def measure_network(
    family: Family,
    shape: Shape,
    network: nn.Module,
    expected: nn.Module,
    calibrated: np.ndarray,
    held_out: np.ndarray,
    steps: int = 0,
) -> QuantisedAccuracy:
    layers = tune_network(family, network, calibrated, steps=steps, seed=1, progress=ignore)
    upscale = quantised_upscaler(family, shape, layers)
    return measure_quantised(layers, upscale, float_upscaler(expected), list(held_out))


def test_a_dense_blocks_convolutions_keep_one_grid(few_pictures: np.ndarray) -> None:
    """OpenVINO then rounds what they read once, and not once for each of them."""
    network = network_of("rrdb", LARGE)
    levels = find_levels(FAMILIES["rrdb"], network, to_inputs(few_pictures)[:, :, :64, :64], 1)
    layers = round_layers(state_of(network), levels, ())
    block = [layer for name, layer in layers.convolutions.items() if "rdb2" in name]
    assert len(block) == 5
    assert common_grid(block) is not None
    assert common_grid([*block, layers.convolutions["conv_body"]]) is None


@pytest.mark.slow
def test_levels_by_channel_bring_a_network_of_unlike_channels_nearer(
    monkeypatch: pytest.MonkeyPatch, few_pictures: np.ndarray
) -> None:
    """One channel of the trunk is 30 times as large as the rest, and read by weights as small.

    In bfloat16 the tail alone would be further off than either trunk.
    """
    monkeypatch.setattr(comparison, "choose_tail_precision", lambda: "f32")
    network = network_of("rrdb", LARGE)
    with torch.no_grad():
        network.get_parameter("conv_first.weight")[0].mul_(30)
        for name, weight in network.named_parameters():
            if ".rdb" in name and name.endswith("weight"):
                weight[:, 0].div_(30)
    inputs = to_inputs(few_pictures)[:, :, :32, :32]
    levels = find_levels(FAMILIES["rrdb"], network, inputs, seed=1)
    scale = levels["body.0.rdb1"].scale.astype(np.float32)
    assert scale[0] > 10 * np.median(scale)
    alike = {
        name: replace(each, scale=np.ones_like(each.scale), low=each.low * 10, high=each.high * 10)
        for name, each in levels.items()
    }
    trunk = [name for name in levels if name.startswith("body")]
    others = [name for name in levels if name not in trunk]
    expect = float_upscaler(network)
    picture = few_pictures[0]

    def distance(found: Mapping[str, InputLevels]) -> float:
        layers = round_layers(state_of(network), found, others)
        upscale = quantised_upscaler("rrdb", LARGE, layers)
        return decibels(upscale(picture), expect(picture))

    assert distance(levels) > distance(alike) + 6


@pytest.mark.slow
def test_each_further_form_has_more_layers_in_floats_and_is_nearer_to_float32(
    few_pictures: np.ndarray,
) -> None:
    shape = rrdb_shape(scale=4, num_block=3, num_feat=8, num_grow_ch=4)
    spec = spec_of("mine", "rrdb", shape)
    network = network_of("rrdb", shape)
    pictures = list(few_pictures[:2, :32, :32])
    expect = float_upscaler(network)
    inputs = to_inputs(few_pictures)[:, :, :32, :32]
    forms = [layers for _, layers in find_forms(spec, network, inputs, pictures, expect, seed=1)]
    left = [{n for n, each in f.convolutions.items() if not each.quantised} for f in forms]
    assert [len(names) for names in left] == [1, 6, 6 + 2 * 15]
    distances = [
        np.mean([decibels(upscale(each), expect(each)) for each in pictures])
        for upscale in (quantised_upscaler("rrdb", shape, form) for form in forms)
    ]
    assert distances == sorted(distances)


def test_held_out_pictures_are_not_used_to_calibrate(
    tmp_path: Path, drawn: tuple[np.ndarray, np.ndarray]
) -> None:
    calibrated, held_out = drawn
    assert calibrated.shape[1:] == held_out.shape[1:] == (SIDE_PX, SIDE_PX, 3)
    assert not any((calibrated == picture).all((1, 2, 3)).any() for picture in held_out)
    flat = [picture for picture in calibrated if (picture == picture[0, 0]).all()]
    assert {tuple(picture[0, 0].tolist()) for picture in flat} >= {(0, 0, 0), (255, 255, 255)}
    with pytest.raises(ValueError, match="holds no picture"):
        draw_pictures(tmp_path, seed=1)


@pytest.mark.slow
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


@pytest.mark.slow
def test_an_inaccurate_result_is_not_written(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = store.find("upscaled-x4")
    monkeypatch.setattr(record, "MIN_PSNR_DB", {"auto": 99.0, "fast": 98.0})
    with pytest.raises(ModelRefused, match=r"upscaled-x4 is not usable in 8 bits: .* must be 98"):
        quantise(spec, store.target(spec), None, steps=0, say=print, progress=ignore)
    assert not quantised_path(store.target(spec)).exists()
    assert not record_path(store.target(spec)).exists()


@pytest.mark.slow
@pytest.mark.parametrize("keeps_colour", [True, False])
def test_a_network_that_changes_colours_is_proven_by_photographs_where_its_pixels_differ(
    store: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keeps_colour: bool
) -> None:
    monkeypatch.setattr(prepare, "PHOTOS_TO_TUNE", 6)
    file = tmp_path / "theirs.pth"
    torch.save(network_of("srvgg", COMPACT).state_dict(), file)
    spec = replace(store.add("theirs", file), keeps_colour=keeps_colour)
    photos = tmp_path / "photos"
    photos.mkdir()
    rng = np.random.default_rng(1)
    for number in range(6):
        pixels = rng.integers(0, 256, (384, 384, 3), np.uint8)
        Image.fromarray(pixels).save(photos / f"{number}.png")
    monkeypatch.setattr(record, "MIN_PSNR_DB", {"auto": 99.0, "fast": 98.0})
    said: list[str] = []
    with suppress(ModelRefused):  # by its pixels
        quantise(spec, store.target(spec), photos, steps=0, say=said.append, progress=ignore)
    tracks = [
        all(f"{track} " in line.partition("photographs: ")[2] for track in TRACKS) for line in said
    ]
    assert any(tracks) != keeps_colour


@pytest.mark.slow
def test_another_networks_8_bits_are_refused(
    drawn: tuple[np.ndarray, np.ndarray], few_pictures: np.ndarray
) -> None:
    network, other = network_of("plain", PLAIN), network_of("plain", PLAIN)
    other.get_parameter("tail.weight").mul_(20)
    _, held_out = drawn
    own, unlike = (
        measure_network("plain", PLAIN, network, expected, few_pictures, held_out[:2])
        for expected in (network, other)
    )
    assert why_not(own, "fast") == ""
    assert "dB against float32" in why_not(unlike, "fast")


@pytest.mark.slow
def test_photos_that_truths_are_cut_from_are_not_calibrated_with(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    for number in range(12):
        side_px = 300 if number == 11 else 400
        pixels = np.full((side_px, side_px, 3), 20 * number, np.uint8)
        pixels[::2] = rng.integers(0, 3, pixels[::2].shape) + 20 * number
        Image.fromarray(pixels).save(tmp_path / f"{number:02}.png")
    (truth,) = draw_truths(tmp_path)  # the sixth; the twelfth is too small
    assert truth.shape == (384, 384, 3)
    assert truth.min() == 100
    calibrated, held_out = draw_pictures(tmp_path, seed=1)
    photos = [each for each in (*calibrated, *held_out) if 0 < np.ptp(each) < 10]
    assert photos
    assert not any(95 <= each.mean() <= 105 for each in photos)


def test_a_network_that_is_not_prepared_in_8_bits_is_refused_by_its_family(
    store: ModelStore, tmp_path: Path
) -> None:
    file = tmp_path / "theirs.pth"
    torch.save(build_network("span", span_shape(scale=2, features=4)).state_dict(), file)
    spec = store.add("theirs", file)
    with pytest.raises(ModelRefused, match="theirs: span networks are not prepared in 8 bits"):
        quantise(spec, store.target(spec), None, steps=0, say=print, progress=ignore)
