"""Writes ncnn pairs of small networks, in the several ways that exporters write them."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random

import numpy as np
from numpy.typing import NDArray

from upscaled_models.families import Family, Shape

State = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Style:
    """The way in which an exporter writes.

    bits: of convolutions' weights. fuses: whether activations and scaled sums are options of other
    layers (ncnnoptimize) or layers of their own (pnnx). swaps: whether sums name their second value
    first. nests: whether channels are joined two at a time. raw_tag: float32's other tag.
    """

    bits: int = 16
    fuses: bool = True
    swaps: bool = False
    nests: bool = False
    raw_tag: bool = False
    seed: int = 1


@dataclass(slots=True)
class PairWriter:
    """Collects layers and weights. Names say nothing, as those of real pairs.

    As in real pairs, one layer at most reads a blob: more readers have a `Split` before them.
    """

    style: Style
    lines: list[str] = field(default_factory=list)
    blobs: int = 0
    data: bytearray = field(default_factory=bytearray)
    random: Random = field(init=False)

    def __post_init__(self) -> None:
        self.random = Random(self.style.seed)

    def layer(self, kind: str, inputs: list[str], options: str = "", outputs: int = 1) -> list[str]:
        made = [f"b{self.blobs + index}_{self.random.randrange(99)}" for index in range(outputs)]
        self.blobs += outputs
        name = f"{kind.lower()}_{self.random.randrange(10**6)}"
        words = [kind, name, str(len(inputs)), str(outputs), *inputs, *made, options]
        self.lines.append(" ".join(words).strip())
        return made

    def one(self, kind: str, inputs: list[str], options: str = "") -> str:
        return self.layer(kind, inputs, options)[0]

    def split(self, blob: str, count: int) -> list[str]:
        """`count` readers of one blob, in no particular order."""
        made = self.layer("Split", [blob], outputs=count)
        self.random.shuffle(made)
        return made

    def convolution(
        self, blob: str, weight: NDArray[np.float32], bias: NDArray[np.float32], slope: str = ""
    ) -> str:
        """slope: of a LeakyReLU behind it, as text; "" for none."""
        side = weight.shape[2]
        options = f"0={len(weight)} 1={side} 4={side // 2} 5=1 6={weight.size}"
        if slope and self.style.fuses:
            options += " 9=1" if slope == "0" else f" 9=2 -23310=1,{slope}"
        made = self.one("Convolution", [blob], options)
        self._put(weight)
        self.data += bias.astype("<f4").tobytes()
        if slope and not self.style.fuses:
            made = self.one("ReLU", [made], "" if slope == "0" else f"0={slope}")
        return made

    def prelu(self, blob: str, slopes: NDArray[np.float32]) -> str:
        made = self.one("PReLU", [blob], f"0={slopes.size}")
        self.data += slopes.astype("<f4").tobytes()
        return made

    def constant(self, values: NDArray[np.float32]) -> str:
        self.data += values.astype("<f4").tobytes()
        return self.one("MemoryData", [], f"0=1 1=1 2={values.size}")

    def swish(self, blob: str) -> str:
        if self.style.fuses:
            return self.one("Swish", [blob])
        first, second = self.split(blob, 2)
        return self.multiply(first, self.one("Sigmoid", [second]))

    def multiply(self, first: str, second: str) -> str:
        inputs = [second, first] if self.style.swaps else [first, second]
        return self.one("BinaryOp", inputs, "0=2")

    def shift(self, blob: str, text: str) -> str:
        """Less a number, or plus what is written as less."""
        if self.style.swaps:
            return self.one("BinaryOp", [blob], f"0=0 1=1 2=-{text}")
        return self.one("BinaryOp", [blob], f"0=1 1=1 2={text}")

    def join(self, blobs: list[str]) -> str:
        if not self.style.nests:
            return self.one("Concat", blobs, "0=0")
        made = blobs[0]
        for blob in blobs[1:]:
            made = self.one("Concat", [made, blob], "0=0")
        return made

    def add(self, first: str, second: str) -> str:
        inputs = [second, first] if self.style.swaps else [first, second]
        return self.one("BinaryOp", inputs, "0=0")

    def add_residual(self, residual: str, blob: str) -> str:
        """`0.2 * residual + blob`."""
        if self.style.fuses and self.style.swaps:
            return self.one("Eltwise", [blob, residual], "0=1 -23301=2,1.0,2.000000e-01")
        if self.style.fuses:
            return self.one("Eltwise", [residual, blob], "0=1 -23301=2,2.000000e-01,1.000000e+00")
        return self.add(self.one("BinaryOp", [residual], "0=2 1=1 2=2.000000e-01"), blob)

    def enlarge(self, blob: str, factor: int) -> str:
        return self.one("Interp", [blob], f"0=1 1={factor:.6e} 2={factor:.6e}")

    def param(self) -> bytes:
        return "\n".join(["7767517", f"{len(self.lines)} {self.blobs}", *self.lines, ""]).encode()

    def _put(self, weight: NDArray[np.float32]) -> None:
        if self.style.bits == 32:
            self.data += struct.pack("<I", 0x0002C056 if self.style.raw_tag else 0)
            self.data += weight.astype("<f4").tobytes()
            return
        halves = weight.astype("<f2").tobytes()
        self.data += struct.pack("<I", 0x01306B47) + halves + bytes(-len(halves) % 4)


def random_state(family: Family, shape: Shape, seed: int = 1) -> dict[str, NDArray[np.float32]]:
    """Weights that 16 bits hold exactly."""
    from upscaled_models.weights import build_network

    rng = np.random.default_rng(seed)
    state = build_network(family, shape).state_dict()
    return {
        key: rng.normal(0, 0.1, tuple(value.shape)).astype(np.float16).astype(np.float32)
        for key, value in state.items()
    }


def write_pair(
    family: Family, shape: Shape, state: State, style: Style | None = None
) -> tuple[bytes, bytes]:
    """Return the contents of the `.param` and the `.bin` file."""
    writer = PairWriter(style or Style())
    image = writer.one("Input", [], "0=64 1=64 2=3")
    if family == "srvgg":
        _write_compact(writer, image, shape, state)
    elif family == "span":
        _write_span(writer, image, shape, state)
    else:
        _write_rrdb(writer, image, shape, state)
    return writer.param(), bytes(writer.data)


def _write_compact(writer: PairWriter, image: str, shape: Shape, state: State) -> None:
    slope = {"prelu": "", "relu": "0", "leakyrelu": "1.000000e-01"}[str(shape["act_type"])]
    blob, picture = writer.split(image, 2)
    for index in range(0, 2 * int(shape["num_conv"]) + 2, 2):
        key = f"body.{index}"
        blob = writer.convolution(blob, state[f"{key}.weight"], state[f"{key}.bias"], slope)
        if not slope:
            blob = writer.prelu(blob, state[f"body.{index + 1}.weight"])
    last = f"body.{2 * int(shape['num_conv']) + 2}"
    blob = writer.convolution(blob, state[f"{last}.weight"], state[f"{last}.bias"])
    blob = writer.one("PixelShuffle", [blob], f"0={shape['upscale']}")
    writer.add(blob, writer.enlarge(picture, int(shape["upscale"])))


def _write_span(writer: PairWriter, image: str, shape: Shape, state: State) -> None:
    def convolve(blob: str, name: str) -> str:
        return writer.convolution(blob, state[f"{name}.weight"], state[f"{name}.bias"])

    blob = image
    if state["mean"].any():
        mean = state["mean"]
        if writer.style.swaps:
            blob = writer.one("BinaryOp", [writer.constant(-mean), blob], "0=0")
        else:
            blob = writer.one("BinaryOp", [blob, writer.constant(mean)], "0=1")
    if state["gain"] != 1:
        blob = writer.one("BinaryOp", [blob], f"0=2 1=1 2={float(state['gain'][0]):.9e}")
    blob, shallow = writer.split(convolve(blob, "conv_1"), 2)
    kept = [shallow]
    for number in range(1, 7):
        blob, entry = writer.split(blob, 2)
        blob = writer.swish(convolve(blob, f"block_{number}.c1_r"))
        if number == 6:
            blob, activated = writer.split(blob, 2)
        blob = writer.swish(convolve(blob, f"block_{number}.c2_r"))
        own, other = writer.split(convolve(blob, f"block_{number}.c3_r"), 2)
        attention = writer.shift(writer.one("Sigmoid", [other]), "5.000000e-01")
        blob = writer.multiply(writer.add(own, entry), attention)
        if number == 1:
            blob, first = writer.split(blob, 2)
            kept.append(first)
    shallow, first = kept
    joined = writer.join([shallow, convolve(blob, "conv_2"), first, activated])
    blob = convolve(convolve(joined, "conv_cat"), "upsampler.0")
    writer.one("PixelShuffle", [blob], f"0={shape['scale']}")


def _write_rrdb(writer: PairWriter, image: str, shape: Shape, state: State) -> None:
    def convolve(blob: str, name: str, slope: str = "") -> str:
        return writer.convolution(blob, state[f"{name}.weight"], state[f"{name}.bias"], slope)

    leak = "2.000000e-01"
    fold = 4 // int(shape["scale"])
    if fold > 1:
        image = writer.one("Reorg", [image], f"0={fold}")
    shallow, blob = writer.split(convolve(image, "conv_first"), 2)
    for index in range(int(shape["num_block"])):
        entry, blob = writer.split(blob, 2)
        for dense in (1, 2, 3):
            blob, *readers = writer.split(blob, 6)
            seen = [readers]
            for step in range(1, 5):
                source = seen[0].pop() if step == 1 else writer.join([r.pop() for r in seen])
                grown = convolve(source, f"body.{index}.rdb{dense}.conv{step}", leak)
                seen.append(writer.split(grown, 5 - step) if step < 4 else [grown])
            fifth = convolve(writer.join([r.pop() for r in seen]), f"body.{index}.rdb{dense}.conv5")
            blob = writer.add_residual(fifth, blob)
        blob = writer.add_residual(blob, entry)
    blob = writer.add(shallow, convolve(blob, "conv_body"))
    for name in ("conv_up1", "conv_up2"):
        blob = convolve(writer.enlarge(blob, 2), name, leak)
    convolve(convolve(blob, "conv_hr", leak), "conv_last")
