"""Build the graph of a network from its shape and weights, and turn its results into pixels.

A graph ends where bfloat16 would cost whole levels and OpenVINO is slow: before the pixel shuffle
and the enlarged input. `finish_window` does these in numpy and OpenCV: 2 instead of 10 to 60 ms.
"""

import math
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from upscaled_models.backends.base import round_up
from upscaled_models.backends.openvino.layers import Floats, Layers
from upscaled_models.backends.openvino.runtime import Graph, Node, import_openvino
from upscaled_models.families import FAMILIES, Family, Shape
from upscaled_models.networks.table import NETWORKS

Pixels = NDArray[np.uint8]

STRIP_BYTES: Final = 1024 * 1024
"""Bytes of a result that become pixels at once, which the processor's caches hold: a whole window's
passed through memory three times, newly mapped each time."""


def build_graph(family: Family, shape: Shape, layers: Layers) -> Graph:
    """Build an `openvino.Model` from uint8 `[N, h, w, 3]` to float32, any N, h and w.

    Its result is in levels (0..255, not clamped): of a network with a tail the picture
    `[N, h*s, w*s, 3]`, of others `[N, h/f, w/f, s*f*s*f*3]`, f the network's fold: a trunk pixel's
    rows, columns and colours of the picture, or of what is added to the enlarged input.

    Raises:
        ValueError: there is no graph of such a network.
    """
    pixels, y = _build(family, shape, layers)
    build_tail = NETWORKS[family].build_tail
    return _end(y if build_tail is None else build_tail(y, layers), pixels, family)


def build_planar_graph(family: Family, shape: Shape, layers: Layers) -> Graph:
    """Build a graph like `build_graph` whose result are its planes, `[N, s*f*s*f*3, h/f, w/f]`.

    The values are the same. Compiled for any size, OpenVINO puts this result in order in one step
    of half the time that it takes for the other's; compiled for one size, the other needs none. For
    networks without a tail.
    """
    openvino = import_openvino()
    pixels, y = _build(family, shape, layers)
    return openvino.Model([openvino.opset15.result(y)], [pixels], f"{family}-planes")


def build_parts(family: Family, shape: Shape, layers: Layers) -> list[Graph]:
    """Build the graphs that run one after the other: the whole network, or its trunk and tail.

    A tail's input is the trunk's features, float32 `[N, h, w, C]`, or any rows of them.
    """
    build_tail = NETWORKS[family].build_tail
    if build_tail is None:
        return [build_graph(family, shape, layers)]
    openvino = import_openvino()
    pixels, y = _build(family, shape, layers)
    channels = int(y.get_output_partial_shape(0)[1].get_length())
    features = openvino.opset15.parameter([-1, -1, -1, channels], openvino.Type.f32)
    tail = build_tail(_to_planes(features), layers)
    return [_end(y, pixels, f"{family}-trunk"), _end(tail, features, f"{family}-tail")]


def finish_window(
    result: Floats,
    window: Pixels,
    family: Family,
    reduce: int,
    *,
    is_planar: bool = False,
    rows: range | None = None,
    into: Pixels | None = None,
) -> Pixels:
    """Make the pixels `[h * s / reduce, w * s / reduce, 3]` of one window's `build_graph` result.

    Args:
        window: uint8 `[h, w, 3]`, the graph's input.
        reduce: average squares of `reduce` x `reduce` result pixels into one, before rounding.
        is_planar: the result is that of `build_planar_graph`.
        rows: of the window, whose result it is; None: all.
        into: where the pixels are written, which then is what is returned; None: new memory.
    """
    rows = range(window.shape[0]) if rows is None else rows
    channels, height = result.shape[:2] if is_planar else (result.shape[2], result.shape[0])
    side = math.isqrt(channels // 3)
    finished = into
    if finished is None:
        width = result.size // (3 * height * side * reduce)
        finished = np.empty((height * side // reduce, width, 3), np.uint8)
    rows_at_once = round_up(max(1, STRIP_BYTES // (result.nbytes // height)), reduce)
    enlargement, fold = NETWORKS[family].enlargement, len(rows) // height
    for top in range(0, height, rows_at_once):
        bottom = min(top + rows_at_once, height)
        more = None
        if enlargement is not None:
            strip_rows = range(rows.start + top * fold, rows.start + bottom * fold)
            more = _enlarge_rows(window, strip_rows, side // fold, enlargement)
        strip = finished[top * side // reduce : bottom * side // reduce]
        if is_planar:
            levels = _shuffle_planes(result[:, top:bottom], side)
        else:
            levels = _shuffle(result[top:bottom], side)
        _round(levels, more, reduce, strip)
    return finished


def _shuffle(part: Floats, side: int) -> Floats:
    """Return `[h * side, w * side, 3]` of rows `[h, w, side * side * 3]`, copied in whole runs."""
    height, width, _ = part.shape
    run = np.dtype((np.void, side * 3 * part.itemsize))
    runs = np.ascontiguousarray(part).view(run).reshape(height, width, side).transpose(0, 2, 1)
    return np.ascontiguousarray(runs).view(part.dtype).reshape(height * side, width * side, 3)


def _shuffle_planes(part: Floats, side: int) -> Floats:
    """Return `[h * side, w * side, 3]` of rows of planes, `[side * side * 3, h, w]`."""
    _, height, width = part.shape
    planes = part.reshape(side, side, 3, height, width).transpose(3, 0, 4, 1, 2)
    return np.ascontiguousarray(planes).reshape(height * side, width * side, 3)


def _enlarge_rows(window: Pixels, rows: range, gain: int, interpolation: int) -> Floats:
    """Enlarge rows of a window, which depend on one row more on either side."""
    first, last = max(0, rows.start - 1), min(window.shape[0], rows.stop + 1)
    size = (window.shape[1] * gain, (last - first) * gain)
    enlarged = cv2.resize(window[first:last].astype(np.float32), size, interpolation=interpolation)
    above = (rows.start - first) * gain
    return np.asarray(enlarged[above : above + len(rows) * gain], np.float32)


def _round(levels: Floats, more: Floats | None, reduce: int, pixels: Pixels) -> None:
    """Add, average and convert to bytes, which OpenCV clamps and rounds to the nearest."""
    if reduce > 1:
        whole = np.clip(levels if more is None else levels + more, 0, 255)
        size = (levels.shape[1] // reduce, levels.shape[0] // reduce)
        levels = np.asarray(cv2.resize(whole, size, interpolation=cv2.INTER_AREA), np.float32)
        more = None
    added = np.zeros(4) if more is None else more
    cv2.add(levels, added, dst=pixels, dtype=cv2.CV_8U)


def _build(family: Family, shape: Shape, layers: Layers) -> tuple[Node, Node]:
    """Build a graph's input, uint8 `[N, h, w, 3]`, and the network or its trunk behind it."""
    if not FAMILIES[family].has_graph(shape):
        raise ValueError(f"there is no graph of a {family} network of shape {dict(shape)}")
    openvino = import_openvino()
    pixels = openvino.opset15.parameter([-1, -1, -1, 3], openvino.Type.u8)
    x = _to_planes(openvino.opset15.convert(pixels, "f32"))
    return pixels, NETWORKS[family].build_graph(x, shape, layers)


def _to_planes(x: Node) -> Node:
    ops = import_openvino().opset15
    return ops.transpose(x, ops.constant(np.array([0, 3, 1, 2])))


def _end(y: Node, source: Node, name: str) -> Graph:
    openvino = import_openvino()
    ops = openvino.opset15
    result = ops.result(ops.transpose(y, ops.constant(np.array([0, 2, 3, 1]))))
    return openvino.Model([result], [source], name)
