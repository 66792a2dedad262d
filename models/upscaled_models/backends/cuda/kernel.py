"""Compile the kernel for a GPU at its first use, by the compiler that torch brings, and launch it.

The bindings are NVIDIA's own (`cuda-bindings`), which torch's CUDA builds depend on.
"""

import ctypes
import hashlib
import importlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

import torch
from torch import Tensor

from upscaled_models.backends.cuda.layout import PLANE_CHANNELS
from upscaled_models.backends.cuda.step import KernelStep
from upscaled_models.backends.cuda.tiling import KernelTiling, choose_tiling
from upscaled_models.errors import BackendUnavailable

LEAST_CAPABILITY: Final = (8, 0)
"""Ampere: asynchronous copies into shared memory, products of bfloat16."""

WARP_THREADS: Final = 32
MAX_COMPILERS: Final = 8

Bindings = Any
Handle = Any
"""cuda-bindings ship no types."""


@dataclass(frozen=True, slots=True)
class KernelVariant:
    """A variant to compile the kernel for, beside GPU and type. columns: of 8 output channels."""

    columns: int
    is_doubled: bool
    to_planes: bool
    to_trunk: bool
    to_picture: bool
    residuals: int


Definitions = tuple[tuple[str, int], ...]
"""Names and values of the macros of conv3x3.cu."""


class _Arguments(ctypes.Structure):
    """The arguments of the kernel: `struct Convolution` of conv3x3.cu."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("first", "second", "weights", "bias", "slope")),
        *((name, ctypes.c_void_p) for name in ("planes", "trunk", "picture")),
        *((name, ctypes.c_void_p) for name in ("residual", "shortcut")),
        *((name, ctypes.c_longlong) for name in ("first_image", "second_image", "planes_image")),
        *((name, ctypes.c_int) for name in ("first_planes", "chunks")),
        *((name, ctypes.c_int) for name in ("source_plane", "source_pitch")),
        *((name, ctypes.c_int) for name in ("height", "width", "pitch", "plane")),
        *((name, ctypes.c_int) for name in ("planes_in_trunk", "picture_channels")),
        *((name, ctypes.c_float) for name in ("gain", "residual_gain", "shortcut_gain")),
    )


class Kernel:
    """Runs steps on one GPU, in torch's current stream, in one 16-bit type."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self._device = device
        self._dtype = dtype
        self._driver = _import("cuda.bindings.driver")
        self._functions: dict[KernelVariant, tuple[Handle, KernelTiling]] = {}
        capability = torch.cuda.get_device_capability(device)
        if capability < LEAST_CAPABILITY:
            raise BackendUnavailable(f"compute capability {capability}: too old")
        self._architecture = "sm_{}{}".format(*capability)

    def __call__(self, step: KernelStep) -> None:
        variant = variant_of(step)
        if variant not in self._functions:
            self.prepare([step])
        function, tiling = self._functions[variant]
        arguments = _arguments(step)
        pointers = (ctypes.c_void_p * 1)(ctypes.addressof(arguments))
        grid = (
            -(-step.layout.width // tiling.width_px),
            -(-step.layout.height // tiling.height_px),
            step.sources[0].shape[0],
        )
        block = (WARP_THREADS * tiling.warps, 1, 1)
        stream = torch.cuda.current_stream(self._device).cuda_stream
        launch = (*grid, *block, tiling.shared_bytes, stream, ctypes.addressof(pointers), 0)
        _check(self._driver.cuLaunchKernel(function, *launch))

    def prepare(self, steps: Iterable[KernelStep]) -> None:
        """Compile all variants of these steps in parallel, before the first step is launched."""
        wanted = {variant_of(step) for step in steps}
        with ThreadPoolExecutor(MAX_COMPILERS) as pool:
            codes = {each: pool.submit(self._compile, each) for each in wanted}
        for variant, code in codes.items():
            tiling = self._choose_tiling(variant.columns)
            self._functions[variant] = self._load(code.result(), tiling.shared_bytes), tiling

    def _compile(self, variant: KernelVariant) -> bytes:
        tiling = self._choose_tiling(variant.columns)
        return compile_cubin(self._architecture, definitions_of(variant, tiling, self._dtype))

    def _choose_tiling(self, columns: int) -> KernelTiling:
        properties: Handle = torch.cuda.get_device_properties(self._device)  # typed in part only
        shared_bytes = int(properties.shared_memory_per_multiprocessor)
        tiling = choose_tiling(columns, shared_bytes, int(properties.shared_memory_per_block_optin))
        if tiling is None:
            raise BackendUnavailable(f"{shared_bytes} bytes of shared memory are too few")
        return tiling

    def _load(self, code: bytes, shared_bytes: int) -> Handle:
        with torch.cuda.device(self._device):
            torch.cuda.current_stream().synchronize()  # makes torch's context this thread's
            module = _check(self._driver.cuModuleLoadData(code))
            function = _check(self._driver.cuModuleGetFunction(module, b"conv3x3"))
            most = self._driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            _check(self._driver.cuFuncSetAttribute(function, most, shared_bytes))
        return function


@cache
def compile_cubin(architecture: str, definitions: Definitions) -> bytes:
    """Compile conv3x3.cu for `architecture`, for example "sm_90"; needs no GPU."""
    nvrtc = _import("cuda.bindings.nvrtc")
    source = _read_source()
    options = [f"--gpu-architecture={architecture}".encode()]
    options += [f"-D{name}={int(value)}".encode() for name, value in definitions]
    program = _check(nvrtc.nvrtcCreateProgram(source, b"conv3x3.cu", 0, [], []))
    (failure,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
    if int(failure):
        log = bytes(_check(nvrtc.nvrtcGetProgramLogSize(program)))
        _check(nvrtc.nvrtcGetProgramLog(program, log))
        raise BackendUnavailable(f"does not compile: {log.decode(errors='replace')}")
    code = bytes(_check(nvrtc.nvrtcGetCUBINSize(program)))
    _check(nvrtc.nvrtcGetCUBIN(program, code))
    _check(nvrtc.nvrtcDestroyProgram(program))
    return code


def variant_of(step: KernelStep) -> KernelVariant:
    """Return the variant of the kernel that runs a step."""
    return KernelVariant(
        columns=step.layer.columns,
        is_doubled=step.is_doubled,
        to_planes=step.planes is not None,
        to_trunk=step.trunk is not None,
        to_picture=step.picture is not None,
        residuals=(step.residual is not None) + (step.shortcut is not None),
    )


def digest() -> str:
    """Digest the kernel's source: where it changes, its candidates are measured again."""
    return hashlib.sha256(_read_source()).hexdigest()[:16]


def _read_source() -> bytes:
    return (files(__package__) / "conv3x3.cu").read_bytes()


def definitions_of(variant: KernelVariant, tiling: KernelTiling, dtype: torch.dtype) -> Definitions:
    """Return the macros of one variant."""
    return (
        ("WARPS", tiling.warps),
        ("WARPS_N", tiling.warps_n),
        ("WARPS_X", tiling.warps_x),
        ("BLOCKS", tiling.blocks),
        ("STAGES", tiling.stages),
        ("RESIDENT", tiling.resident),
        ("IS_BFLOAT16", dtype == torch.bfloat16),
        ("IS_DOUBLED", variant.is_doubled),
        ("TO_PLANES", variant.to_planes),
        ("TO_TRUNK", variant.to_trunk),
        ("TO_PICTURE", variant.to_picture),
        ("RESIDUALS", variant.residuals),
    )


def _arguments(step: KernelStep) -> _Arguments:
    first, second = step.sources[0], step.sources[-1]
    trunks = [each for each in (step.trunk, step.residual, step.shortcut) if each is not None]
    return _Arguments(
        first=first.data_ptr(),
        second=second.data_ptr(),
        weights=step.layer.weights.data_ptr(),
        bias=step.layer.bias.data_ptr(),
        slope=step.layer.slope.data_ptr(),
        planes=_address(step.planes),
        trunk=_address(step.trunk),
        picture=_address(step.picture),
        residual=_address(step.residual),
        shortcut=_address(step.shortcut),
        first_image=first.stride(0) // PLANE_CHANNELS,
        second_image=second.stride(0) // PLANE_CHANNELS,
        planes_image=0 if step.planes is None else step.planes.stride(0) // PLANE_CHANNELS,
        first_planes=first.shape[1],
        chunks=step.layer.weights.shape[0],
        source_plane=first.shape[2] * first.shape[3],
        source_pitch=first.shape[3],
        height=step.layout.height,
        width=step.layout.width,
        pitch=step.layout.pitch,
        plane=step.layout.rows * step.layout.pitch,
        planes_in_trunk=trunks[0].shape[1] if trunks else 0,
        picture_channels=0 if step.picture is None else step.picture.shape[1],
        gain=step.gain,
        residual_gain=step.residual_gain,
        shortcut_gain=step.shortcut_gain,
    )


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _import(name: str) -> Bindings:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise BackendUnavailable(f"{name} is not here: {error}") from error


def _check(answer: tuple[Handle, ...]) -> Handle:
    """Return the result of a call of the bindings."""
    error, *results = answer
    if int(error):
        raise BackendUnavailable(f"{error!r}")
    return results[0] if results else None
