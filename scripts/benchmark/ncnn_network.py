"""ncnn, given our networks in its own two files, as a contestant."""

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from scripts.benchmark.contestant import Absent, Entry
from scripts.benchmark.flops import count_gflop
from scripts.benchmark.ours import find_spec
from scripts.benchmark.pictures import Pixels, make_pixels
from upscaled_models.families.rrdb import LEAK, RESIDUAL_SCALE
from upscaled_models.networks.compact import SRVGGNetCompact
from upscaled_models.networks.rrdb import ResidualDenseBlock, RRDBNet
from upscaled_models.store import ModelStore
from upscaled_models.weights import load_network

MAGIC = 7767517
ADD, MULTIPLY = 0, 2
NEAREST = 1
LEAKY_RELU = 2


class Ncnn:
    """The whole picture at once, without halos; bfloat16 storage, its fastest here."""

    label = "ncnn bfloat16"

    def __init__(self, entry: Entry) -> None:
        try:
            import ncnn  # type: ignore[import-not-found, import-untyped, unused-ignore]
        except ImportError as error:
            raise Absent(f"ncnn is not installed: {error}") from error
        if entry.device != "cpu":
            raise Absent("ncnn runs on CUDA devices through Vulkan only")
        spec = find_spec(entry)
        network = load_network(spec, ModelStore(Path(entry.data_dir) / "models").target(spec))
        self.gflop = count_gflop(network, entry.height_px, entry.width_px)
        self._ncnn: Any = ncnn
        self._net = ncnn.Net()
        self._net.opt.use_bf16_storage = True
        with tempfile.TemporaryDirectory() as folder:
            write_network(network, Path(folder))
            self._net.load_param(str(Path(folder) / "network.param"))
            self._net.load_model(str(Path(folder) / "network.bin"))
        self._rgb = make_pixels(entry.height_px, entry.width_px)

    def run(self) -> Pixels:
        levels = np.ascontiguousarray(self._rgb.transpose(2, 0, 1), np.float32) / 255
        extractor = self._net.create_extractor()
        extractor.input("in", self._ncnn.Mat(levels))
        status, result = extractor.extract("out")
        if status != 0:
            raise RuntimeError(f"ncnn answers {status}")
        pixels = np.rint(np.array(result).clip(0, 1) * 255).astype(np.uint8)
        return np.ascontiguousarray(pixels.transpose(1, 2, 0))


@dataclass
class _Graph:
    """Layers and weights as ncnn's text and binary file hold them.

    Every blob has one reader there: what several layers read goes through a `Split`.
    """

    layers: list[str] = field(default_factory=list)
    weights: list[bytes] = field(default_factory=list)
    blobs: int = 0

    def add(self, kind: str, inputs: Iterable[str], outputs: list[str], **numbers: object) -> None:
        """Add a layer; `_0=64` in `numbers` is ncnn's parameter 0."""
        given = list(inputs)
        words = [kind, f"layer{len(self.layers)}", str(len(given)), str(len(outputs))]
        words += [*given, *outputs]
        words += [f"{name[1:].replace('m', '-')}={value}" for name, value in numbers.items()]
        self.layers.append(" ".join(words))
        self.blobs += len(outputs)

    def split(self, blob: str, readers: int) -> list[str]:
        outputs = [f"{blob}_{at}" for at in range(readers)]
        self.add("Split", [blob], outputs)
        return outputs

    def convolve(self, layer: nn.Conv2d, blob: str, leak: float | None = None) -> str:
        numbers: dict[str, object] = {"_0": layer.out_channels, "_1": 3, "_4": 1, "_5": 1}
        numbers["_6"] = layer.weight.numel()
        if leak is not None:
            numbers |= {"_9": LEAKY_RELU, "_m23310": f"1,{leak}"}
        as_float32 = bytes(4)
        self.weights += [as_float32, _raw(layer.weight), _raw(cast(torch.Tensor, layer.bias))]
        return self.one("Convolution", blob, **numbers)

    def one(self, kind: str, *inputs: str, **numbers: object) -> str:
        """Add a layer with one result."""
        out = f"blob{self.blobs}"
        self.add(kind, inputs, [out], **numbers)
        return out

    def double(self, blob: str, times: int = 2) -> str:
        return self.one("Interp", blob, _0=NEAREST, _1=float(times), _2=float(times))

    def write(self, folder: Path) -> None:
        lines = [str(MAGIC), f"{len(self.layers)} {self.blobs}", *self.layers]
        (folder / "network.param").write_text("\n".join(lines) + "\n")
        (folder / "network.bin").write_bytes(b"".join(self.weights))


def write_network(network: nn.Module, folder: Path) -> None:
    """Write `network.param` and `network.bin` of a published network; blobs "in" and "out".

    Raises:
        Absent: a network of another kind.
    """
    graph = _Graph()
    graph.add("Input", [], ["in"])
    if isinstance(network, SRVGGNetCompact):
        out = _add_compact(graph, network)
    elif isinstance(network, RRDBNet) and network.unshuffle == 1:
        out = _add_rrdb(graph, network)
    else:
        raise Absent(f"{type(network).__name__} is not written for ncnn")
    graph.add("Noop", [out], ["out"])
    graph.write(folder)


def _add_compact(graph: _Graph, network: SRVGGNetCompact) -> str:
    picture, blob = graph.split("in", 2)
    for layer in network.body:
        if isinstance(layer, nn.Conv2d):
            blob = graph.convolve(layer, blob)
        elif isinstance(layer, nn.PReLU):
            blob = graph.one("PReLU", blob, _0=layer.num_parameters)
            graph.weights.append(_raw(layer.weight))
        else:
            raise Absent(f"{type(layer).__name__} is not written for ncnn")
    details = graph.one("PixelShuffle", blob, _0=network.upscale)
    return graph.one("BinaryOp", details, graph.double(picture, network.upscale), _0=ADD)


def _add_rrdb(graph: _Graph, network: RRDBNet) -> str:
    shallow, blob = graph.split(graph.convolve(network.conv_first, "in"), 2)
    for group in network.body:
        kept, blob = graph.split(blob, 2)
        for block in group.children():
            blob = _add_dense(graph, cast(ResidualDenseBlock, block), blob)
        blob = _add_residual(graph, blob, kept)
    features = graph.one("BinaryOp", graph.convolve(network.conv_body, blob), shallow, _0=ADD)
    for layer in (network.conv_up1, network.conv_up2):
        features = graph.convolve(layer, graph.double(features), LEAK)
    return graph.convolve(network.conv_last, graph.convolve(network.conv_hr, features, LEAK))


def _add_dense(graph: _Graph, block: ResidualDenseBlock, blob: str) -> str:
    kept, seen = graph.split(blob, 2)
    for layer in (block.conv1, block.conv2, block.conv3, block.conv4):
        earlier, source = graph.split(seen, 2)
        seen = graph.one("Concat", earlier, graph.convolve(layer, source, LEAK))
    return _add_residual(graph, graph.convolve(block.conv5, seen), kept)


def _add_residual(graph: _Graph, residual: str, kept: str) -> str:
    scaled = graph.one("BinaryOp", residual, _0=MULTIPLY, _1=1, _2=RESIDUAL_SCALE)
    return graph.one("BinaryOp", scaled, kept, _0=ADD)


def _raw(values: torch.Tensor) -> bytes:
    return values.detach().float().contiguous().numpy().tobytes()
