"""Import OpenVINO without its telemetry, and compile graphs; nothing else imports it.

`import openvino` reports to a web analytics service unless that part is missing, so it is made so.
"""

import hashlib
import importlib
import sys
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

OpenVino = Any
Graph = Any
Node = Any
"""OpenVINO ships no types."""

_TELEMETRY: Final = "openvino_telemetry"

KEPT_KERNELS: Final = 64
"""Limit on kernels that a graph for any shape keeps beside those in use."""


@cache
def import_openvino() -> OpenVino:
    """Import the `openvino` module; ImportError: not installed, or imported with its telemetry."""
    if sys.modules.setdefault(_TELEMETRY, None) is not None:  # type: ignore[arg-type]
        raise ImportError(f"{_TELEMETRY} is already at work in this process")
    return importlib.import_module("openvino")


@cache
def open_core() -> OpenVino:
    """Open OpenVINO's `Core`, one for the process: it keeps compiled kernels."""
    return import_openvino().Core()


@cache
def digest() -> str:
    """Digest the sources of graphs: where they change, their candidates are measured again."""
    here = Path(__file__).parent
    networks = here.parents[1] / "networks"
    sources = [*sorted(here.glob("*.py")), *sorted(networks.glob("*.py"))]
    return hashlib.sha256(b"".join(each.read_bytes() for each in sources)).hexdigest()[:16]


def has_fast_bfloat16() -> bool:
    """Return whether this CPU multiplies bfloat16 by instructions of its own."""
    return "BF16" in open_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def choose_tail_precision() -> str:
    """Choose "f32" or "bf16" for what follows the trunk of an RRDB network in 8 bits.

    In float32 that is a quarter of such a network's time, in bfloat16 half as much.
    """
    return "bf16" if has_fast_bfloat16() else "f32"


def compile_graph(graph: Graph, *, precision: str, threads: int) -> OpenVino:
    """Compile a graph for this CPU: one stream on any `threads` cores.

    A graph of open shapes has kernels for each, of which few are kept (11 MB a shape of x4plus).
    `precision` is what layers compute in that are not quantised.
    """
    options: dict[str, str | int | bool] = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        # A thread tied to a core waits for whatever else runs there, with the other core free.
        "ENABLE_CPU_PINNING": False,
    }
    if graph.is_dynamic():
        options["CPU_RUNTIME_CACHE_CAPACITY"] = KEPT_KERNELS
    return open_core().compile_model(graph, "CPU", options)


def infer(request: OpenVino, values: NDArray[np.generic], *tensors: OpenVino) -> None:
    """Compute a graph's inputs; its results are in the tensors of `request`.

    By default OpenVINO copies both, the results for a return value that nothing uses.

    Args:
        tensors: OpenVINO's own, of the inputs after the first.
    """
    request.infer([values, *tensors], share_inputs=True, share_outputs=True)
