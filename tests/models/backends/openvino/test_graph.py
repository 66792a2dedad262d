import subprocess
import sys
from dataclasses import replace
from functools import partial

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.models.quantise.test_rounding import levels_of
from upscaled_models.backends.openvino import graph
from upscaled_models.backends.openvino.graph import (
    build_graph,
    build_planar_graph,
    finish_window,
)
from upscaled_models.backends.openvino.layers import Convolution, Layers, Quantisation, layers_of
from upscaled_models.backends.openvino.runtime import compile_graph
from upscaled_models.families import FAMILIES, Family, Shape
from upscaled_models.families.compact import srvgg_shape
from upscaled_models.families.plain import plain_shape
from upscaled_models.families.realplksr import realplksr_shape
from upscaled_models.families.rrdb import rrdb_shape
from upscaled_models.families.span import span_shape
from upscaled_models.quantise.rounding import round_layers
from upscaled_models.weights import build_network, state_of

STRIP_BYTES = 100_000
"""Of strips in a test: windows of several strips are small then."""

NETWORKS: list[tuple[Family, Shape]] = [
    ("plain", plain_shape(scale=2, layers=2, features=8)),
    ("plain", plain_shape(scale=4, layers=0, features=4)),
    ("plain", plain_shape(scale=2, layers=1, features=8, fold=2)),
    ("srvgg", srvgg_shape(upscale=4, num_conv=2, num_feat=8, act_type="prelu")),
    ("srvgg", srvgg_shape(upscale=2, num_conv=1, num_feat=8, act_type="leakyrelu")),
    ("srvgg", srvgg_shape(upscale=3, num_conv=1, num_feat=8, act_type="relu")),
    ("srvgg", srvgg_shape(upscale=1, num_conv=1, num_feat=8, act_type="prelu")),
    ("rrdb", rrdb_shape(scale=4, num_block=1, num_feat=8, num_grow_ch=4)),
    ("rrdb", rrdb_shape(scale=2, num_block=1, num_feat=8, num_grow_ch=4)),
    ("rrdb", rrdb_shape(scale=1, num_block=2, num_feat=8, num_grow_ch=4)),
    ("span", span_shape(scale=2, features=8)),
    ("span", span_shape(scale=4, features=4)),
    ("realplksr", realplksr_shape(2, 8, 2, 5, 4, norm="group")),
    ("realplksr", realplksr_shape(4, 8, 1, 3, 8, norm="layer")),
    ("realplksr", realplksr_shape(4, 8, 1, 7, 2, norm="group", attention="no")),
]


def draw_window(height: int = 24, width: int = 20) -> NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(("family", "shape"), NETWORKS, ids=lambda value: str(value)[:60])
@pytest.mark.parametrize("reduce", [1, 2])
def test_a_graph_gives_the_pixels_that_torch_gives(
    family: Family, shape: Shape, reduce: int
) -> None:
    if any(shape.get(key) in (1, 3) for key in ("scale", "upscale")) and reduce > 1:
        pytest.skip("nothing to reduce")
    torch.manual_seed(5)
    network = build_network(family, shape).eval()
    for weight in network.parameters():
        if weight.ndim == 1:  # a normalisation's weight of 1 and bias of 0 would hide a mistake
            torch.nn.init.uniform_(weight, 0.2, 0.6)
    for name, value in network.named_buffers():
        value.copy_(torch.tensor([3.5] if name == "gain" else [0.25, 0.5, 0.75]))
    state = {key: value.numpy() for key, value in network.state_dict().items()}
    window = draw_window()
    built = build_graph(family, shape, layers_of(state))
    compiled = compile_graph(built, precision="f32", threads=1)
    got = finish_window(compiled(window[None])[0][0], window, family, reduce)
    with torch.inference_mode():
        result = network(torch.from_numpy(window[None]).permute(0, 3, 1, 2).float() / 255)
        averaged = torch.nn.functional.avg_pool2d(result.clamp(0, 1), reduce)
    expected = averaged[0].permute(1, 2, 0).numpy() * 255
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() < 0.502  # the nearest whole level, but for float's noise
    if family != "rrdb":
        built = build_planar_graph(family, shape, layers_of(state))
        planes = compile_graph(built, precision="f32", threads=1)(window[None])[0][0]
        assert np.array_equal(finish_window(planes, window, family, reduce, is_planar=True), got)


@pytest.mark.parametrize(
    ("family", "fold", "side", "interpolation"),
    [
        ("plain", 1, 4, cv2.INTER_LINEAR),
        ("plain", 2, 4, cv2.INTER_LINEAR),
        ("srvgg", 1, 4, cv2.INTER_NEAREST),
        ("span", 1, 4, None),
        ("rrdb", 1, 1, None),
    ],
)
@pytest.mark.parametrize("reduce", [1, 2])
def test_a_large_window_has_no_seams_where_its_strips_meet(
    monkeypatch: pytest.MonkeyPatch,
    family: Family,
    fold: int,
    side: int,
    interpolation: int | None,
    reduce: int,
) -> None:
    monkeypatch.setattr(graph, "STRIP_BYTES", STRIP_BYTES)
    window, generator = draw_window(122, 120), np.random.default_rng(4)
    height, width = 122 // fold, 120 // fold * (4 // side if family == "rrdb" else 1)
    result = generator.normal(90, 90, (height, width, 3 * side**2)).astype(np.float32)
    rows = result.reshape(height, width, side, side * 3).transpose(0, 2, 1, 3)
    levels: NDArray[np.float32] = rows.reshape(height * side, width * side, 3)
    if interpolation is not None:
        size = (levels.shape[1], levels.shape[0])
        skip = cv2.resize(window.astype(np.float32), size, interpolation=interpolation)
        levels = np.asarray(levels + skip, np.float32)
    if reduce > 1:
        size = (levels.shape[1] // reduce, levels.shape[0] // reduce)
        whole = np.clip(levels, 0, 255)
        averaged = cv2.resize(whole, size, interpolation=cv2.INTER_AREA)
        levels = np.asarray(averaged, np.float32)
    expected = np.clip(np.rint(levels), 0, 255)
    assert result[:1].nbytes * 4 < STRIP_BYTES < result.nbytes / 4, "it takes several strips"
    assert np.array_equal(finish_window(result, window, family, reduce), expected)
    if family != "rrdb":
        planes = np.ascontiguousarray(result.transpose(2, 0, 1))
        assert np.array_equal(
            finish_window(planes, window, family, reduce, is_planar=True), expected
        )


def test_a_network_without_a_graph_is_known_as_such() -> None:
    assert all(FAMILIES[family].has_graph(shape) for family, shape in NETWORKS)
    shape = realplksr_shape(2, 8, 1, 5, 4, upsampler="dysample")
    assert not FAMILIES["realplksr"].has_graph(shape)
    with pytest.raises(ValueError, match=r"no graph of a realplksr network .*dysample"):
        build_graph("realplksr", shape, Layers({}, {}))


def test_openvino_opens_no_connection_when_it_is_imported() -> None:
    """Its telemetry would, in a thread, a process or at exit; the hook notices all three."""
    script = """
import sys
called = []
watched = ("socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.posix_spawn", "os.fork")
sys.addaudithook(lambda event, arguments: called.append(event) if event in watched else None)
from upscaled_models.backends.openvino.runtime import open_core
open_core()
import atexit
atexit.register(print, called)
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_telemetry_that_was_started_before_the_import_is_refused() -> None:
    script = """
import sys, types
sys.modules["openvino_telemetry"] = types.ModuleType("openvino_telemetry")
from upscaled_models.backends.openvino.runtime import import_openvino
import_openvino()
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ran.returncode
    assert "already at work" in ran.stderr


def test_the_input_of_a_dense_block_is_rounded_once_where_its_layers_share_levels() -> None:
    """Else a seventh of the time goes into rounding: once for each convolution that reads it."""
    shape = rrdb_shape(scale=4, num_block=1, num_feat=8, num_grow_ch=4)
    network = build_network("rrdb", shape)
    state = {key: value.numpy() for key, value in network.state_dict().items()}
    floats = layers_of(state)

    def joined_and_rounded(high: float) -> int:
        """Count both, where the last convolutions of the blocks have ranges up to `high`."""
        convolutions = {
            name: replace(
                layer,
                weight=np.ones(layer.weight.shape, np.int8),
                quantised=Quantisation(
                    np.ones(len(layer.weight), np.float32),
                    -1.0,
                    high if name.endswith("conv5") else 1.0,
                ),
            )
            for name, layer in floats.convolutions.items()
            if "rdb" in name
        }
        layers = Layers({**floats.convolutions, **convolutions}, {})
        operations = build_graph("rrdb", shape, layers).get_ops()
        roundings = [each for each in operations if each.get_type_name() == "FakeQuantize"]
        read = [each.input_value(0).get_node().get_type_name() for each in roundings]
        assert len(read) == 3 * 5  # blocks, and their outputs or convolutions
        return read.count("Concat")

    assert joined_and_rounded(high=1.0) == 0
    assert joined_and_rounded(high=2.0) == 3 * 4


@pytest.mark.parametrize("float_layers", [(), ("conv_hr", "conv_last")])
def test_inputs_divided_by_channel_equal_the_same_whole_numbers_in_torch(
    float_layers: tuple[str, ...],
) -> None:
    """Reference: torch on the same whole numbers, each layer for itself, nothing fused."""
    shape = rrdb_shape(scale=4, num_block=1, num_feat=8, num_grow_ch=4)
    torch.manual_seed(5)
    network = build_network("rrdb", shape).eval()
    state = state_of(network)
    layers = round_layers(state, levels_of(state), float_layers)
    for name, module in network.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            module.forward = partial(compute_in_8_bits, layers.convolutions[name])  # type: ignore[method-assign]
    window = draw_window()
    with torch.inference_mode():
        result = network(torch.from_numpy(window[None]).permute(0, 3, 1, 2).float() / 255)
    compiled = compile_graph(build_graph("rrdb", shape, layers), precision="f32", threads=1)
    errors = np.abs(compiled(window[None])[0][0] - result[0].permute(1, 2, 0).numpy() * 255)
    # A value on the edge between two of 256 levels may fall to either side.
    assert np.median(errors) < 0.05
    assert errors.mean() < 0.5


def compute_in_8_bits(layer: Convolution, x: torch.Tensor) -> torch.Tensor:
    weight = torch.from_numpy(layer.weight.astype(np.float32))
    if layer.quantised is not None:
        found = layer.quantised
        assert found.input_scale is not None
        step = (found.high - found.low) / 255
        zero = round(-found.low / step)
        divided = x / torch.from_numpy(found.input_scale).view(1, -1, 1, 1)
        x = ((divided / step).round() + zero).clamp(0, 255).sub(zero) * step
        weight = weight * torch.from_numpy(found.weight_scale).view(-1, 1, 1, 1)
    assert layer.bias is not None
    return torch.nn.functional.conv2d(x, weight, torch.from_numpy(layer.bias), padding=1)


def test_a_picture_is_doubled_for_a_convolution_in_8_bits_alone() -> None:
    """In floats, three rows of the doubled picture are two of the one before: 4 products, not 9."""
    shape = rrdb_shape(scale=4, num_block=1, num_feat=8, num_grow_ch=4)
    state = state_of(build_network("rrdb", shape))

    def doublings(float_layers: tuple[str, ...]) -> int:
        layers = round_layers(state, levels_of(state), float_layers)
        operations = build_graph("rrdb", shape, layers).get_ops()
        return sum(each.get_type_name() == "Interpolate" for each in operations)

    assert doublings(("conv_up1", "conv_up2")) == 0
    assert doublings(("conv_up2",)) == 1
