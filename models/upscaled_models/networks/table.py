"""The table of what runs the networks of each family: torch, an OpenVINO graph.

A network that our CUDA kernel can run is a `KernelModule`; `families` has what needs no torch.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import cv2
from torch import Tensor, nn

from upscaled_models.backends.openvino.layers import Layers
from upscaled_models.backends.openvino.runtime import Node
from upscaled_models.families import Family, Shape
from upscaled_models.networks import compact, plain, realplksr, rrdb, rrdb_graph, span
from upscaled_models.networks.chain import Chain

State = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Implementation:
    """The implementations of a family's networks.

    module: the torch module, made with a shape's arguments. build_graph: adds the network's nodes
    behind its input in levels. build_chain: returns the same as a chain of convolutions, where it
    is one: tall windows then go through it in bands. build_tail: adds those that follow the
    features which `build_graph` then ends with, and which run in strips. enlargement: OpenCV's
    interpolation of the input that is added to the result outside of the graph; None where none is
    added. max_ready_shapes: how many compiled shapes are kept; each holds 5 to 20 MB, RRDB's with
    23 blocks 85 (8 bits) to 115 MB. max_unready_px: windows of an odd shape up to this area are not
    worth a compilation and run in float32 by torch, but for an engine under trial. fuse_state:
    makes a file's weights those of `module`.
    """

    module: type[nn.Module]
    build_graph: Callable[[Node, Shape, Layers], Node]
    build_chain: Callable[[Shape, Layers], Chain] | None = None
    build_tail: Callable[[Node, Layers], Node] | None = None
    enlargement: int | None = None
    max_ready_shapes: int = 8
    max_unready_px: int = 0
    fuse_state: Callable[[Mapping[str, Tensor]], State] = dict


NETWORKS: Final[Mapping[Family, Implementation]] = {
    "rrdb": Implementation(
        rrdb.RRDBNet,
        rrdb_graph.build_trunk,
        build_tail=rrdb_graph.build_tail,
        max_ready_shapes=2,
        max_unready_px=96 * 96,
    ),
    "srvgg": Implementation(
        compact.SRVGGNetCompact,
        compact.build_graph,
        compact.build_chain,
        enlargement=cv2.INTER_NEAREST,
    ),
    "span": Implementation(span.SPAN, span.build_graph, fuse_state=span.fuse_state),
    "realplksr": Implementation(
        realplksr.RealPLKSR,
        realplksr.build_graph,
        enlargement=cv2.INTER_NEAREST,
        max_ready_shapes=3,
        max_unready_px=96 * 96,
    ),
    "plain": Implementation(
        plain.PlainNet, plain.build_graph, plain.build_chain, enlargement=cv2.INTER_LINEAR
    ),
}
