"""Tuning in 8 bits: layers that are read back as they were stored, and a run that continues."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from scripts.training import checkpoint, eight_bits
from scripts.training.command import main
from scripts.training.degradation import Harm
from scripts.training.eight_bits import EightBitRecipe, find_smooth, simulate_layers
from scripts.training.export import store_weights
from upscaled_models.networks.compact import SRVGGNetCompact
from upscaled_models.quantise.features import VARIANTS
from upscaled_models.quantise.files import parse_layers, serialise_layers
from upscaled_models.quantise.installed import MissingPackage, read_packaged
from upscaled_models.quantise.simulation import freeze, simulated

TINY = ("steps=4", "batch=1", "patch_px=12", "pages=1")


@pytest.fixture
def network() -> SRVGGNetCompact:
    """A network like the shipped one, small, whose slopes differ."""
    torch.manual_seed(2)
    made = SRVGGNetCompact(num_feat=8, num_conv=2, upscale=4)
    for module in made.modules():
        if isinstance(module, torch.nn.PReLU):
            torch.nn.init.uniform_(module.weight, -0.5, 1.0)
    return made


@pytest.fixture
def targets(tmp_path: Path) -> Path:
    """Three targets of noise, enlarged by repetition."""
    try:
        read_packaged(VARIANTS["lite0"].weights)
    except MissingPackage as error:
        pytest.skip(str(error))
    folder = tmp_path / "targets"
    folder.mkdir()
    for number in range(3):
        small = np.random.default_rng(number).integers(0, 256, (24, 24, 3), dtype=np.uint8)
        large = small.repeat(4, 0).repeat(4, 1)
        harm = int(Harm.NOISY if number else Harm.NONE)
        np.savez(folder / f"{number}.npz", small=small, large=large, truth=large, harm=harm)
    return folder


def call(targets: Path, out: Path, model: Path, *more: str | Path) -> None:
    settings = [part for value in TINY for part in ("--set", value)]
    given: Sequence[str | Path] = ("--targets", targets, "--out", out, "--from", model, *settings)
    main(["eight-bits", "--threads", "1", *map(str, [*given, *more])])


@pytest.fixture
def model(tmp_path: Path, network: SRVGGNetCompact) -> Path:
    path = tmp_path / "student.safetensors"
    store_weights(network.state_dict(), path)
    return path


def test_stored_layers_are_simulated_as_they_are(network: SRVGGNetCompact, tmp_path: Path) -> None:
    patches = torch.rand(2, 3, 20, 20)
    first = freeze(eight_bits.simulate_untuned(network, patches, 0.6))
    data = serialise_layers(first)
    again = simulate_layers(network, parse_layers(data, tmp_path))
    stored = parse_layers(serialise_layers(freeze(again)), tmp_path)
    assert stored.slopes.keys() == first.slopes.keys()
    for name, layer in first.convolutions.items():
        other = stored.convolutions[name]
        assert np.array_equal(layer.weight, other.weight)
        assert layer.bias is not None
        assert other.bias is not None
        assert np.array_equal(layer.bias, other.bias)
        assert layer.quantised is not None
        assert other.quantised is not None
        assert np.allclose(layer.quantised.weight_scale, other.quantised.weight_scale, rtol=1e-6)
        assert layer.quantised.low == pytest.approx(other.quantised.low, rel=1e-6)
        assert layer.quantised.high == pytest.approx(other.quantised.high, rel=1e-6)
    for name, slope in first.slopes.items():
        assert np.array_equal(slope, stored.slopes[name])


def test_a_layer_in_floats_is_not_simulated(network: SRVGGNetCompact) -> None:
    layers = freeze(eight_bits.simulate_untuned(network, torch.rand(1, 3, 20, 20), 0.6))
    in_floats = replace(layers.convolutions["body.0"], quantised=None)
    layers = replace(layers, convolutions={**layers.convolutions, "body.0": in_floats})
    with pytest.raises(ValueError, match=r"body\.0 is not in 8 bits"):
        simulate_layers(network, layers)


@pytest.mark.slow
def test_a_run_that_was_stopped_ends_as_one_that_was_not(
    tmp_path: Path, targets: Path, model: Path
) -> None:
    call(targets, tmp_path / "whole", model, "--to", tmp_path / "whole.safetensors")
    call(targets, tmp_path / "parts", model, "--until", "2")
    stopped = checkpoint.read(tmp_path / "parts")
    assert stopped is not None
    assert stopped["step"] == 2
    call(targets, tmp_path / "parts", model, "--to", tmp_path / "parts.safetensors")
    whole, parts = (tmp_path / f"{name}.safetensors" for name in ("whole", "parts"))
    assert whole.read_bytes() == parts.read_bytes()
    begins = (tmp_path / "parts" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["begins_at"] for line in begins] == [0, 2]


def test_a_run_starts_from_stored_layers(tmp_path: Path, targets: Path, model: Path) -> None:
    first, second = (tmp_path / f"{name}.safetensors" for name in ("first", "second"))
    call(targets, tmp_path / "a", model, "--to", first)
    call(targets, tmp_path / "b", model, "--start", first, "--until", "0", "--to", second)
    before, after = (parse_layers(path.read_bytes(), path) for path in (first, second))
    for name, layer in before.convolutions.items():
        assert np.array_equal(layer.weight, after.convolutions[name].weight)


@pytest.mark.slow
def test_tuning_brings_weights_back_that_are_a_few_steps_off(
    tmp_path: Path, targets: Path, network: SRVGGNetCompact
) -> None:
    patches = torch.rand(3, 3, 24, 24)
    start = eight_bits.simulate_untuned(network, patches, 0.6)
    with torch.no_grad():
        for layer in simulated(start).values():
            steps = layer.log_weight_scale.exp().view(-1, 1, 1, 1)
            layer.weight.add_(torch.randn_like(layer.weight) * 4 * steps)
    recipe = EightBitRecipe(steps=25, batch=2, patch_px=12, pages=0, page_share=0, rate=0.2)
    run = eight_bits.begin(recipe, network, start)

    def error(simulated: torch.nn.Module) -> float:
        with torch.no_grad():
            return float((simulated(patches) - network(patches)).square().mean())

    before = error(run.average)
    eight_bits.train(run, targets, tmp_path / "run", until=None)
    assert error(run.average) < before / 2


@pytest.mark.parametrize(("levels", "is_smooth"), [(6, True), (8, False)])
def test_an_area_is_smooth_where_it_varies_by_less_than_7_levels(
    levels: int, *, is_smooth: bool
) -> None:
    pixels = torch.full((1, 3, 31, 31), 0.5)
    pixels[..., 16] += levels / 255
    found = find_smooth(pixels)
    assert found.shape == (1, 1, 31, 31)
    assert bool(found[0, 0, 15, 15] == 1) is is_smooth
    assert found[0, 0, 15, 2] == 1
