"""The kernel itself: compiled wherever NVIDIA's compiler is, run where a GPU is."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import pytest
import torch
from torch import Tensor, nn

from tests.models.backends.cuda.torch_launcher import from_planes, launch_with_torch
from upscaled_models.backends.cuda.engine import list_steps
from upscaled_models.backends.cuda.kernel import (
    Kernel,
    compile_cubin,
    definitions_of,
    digest,
    variant_of,
)
from upscaled_models.backends.cuda.layout import (
    RING_PX,
    PlaneLayout,
    make_planes,
    make_trunk,
    to_planes,
)
from upscaled_models.backends.cuda.step import KernelStep, Target
from upscaled_models.backends.cuda.tiling import choose_tiling
from upscaled_models.errors import BackendUnavailable
from upscaled_models.networks.rrdb import RRDBNet

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}
PLACES = {"inside one tile": (5, 9), "across tiles": (50, 97), "up to their edges": (32, 64)}
BATCH = 2


@pytest.fixture(autouse=True)
def whole_float32() -> Iterator[None]:
    """Torch's own convolutions on CUDA round float32 to 10 bits by default."""
    convolutions = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before = convolutions.fp32_precision
    convolutions.fp32_precision = "ieee"
    yield
    convolutions.fp32_precision = before


def make_step(
    device: torch.device,
    dtype: torch.dtype,
    inputs: int,
    outputs: int,
    layout: PlaneLayout,
    **kind: bool,
) -> KernelStep:
    """A step of random values; `kind` says what it reads and writes."""
    torch.manual_seed(0)
    target = Target(dtype, device, launch_with_torch)
    layer = target.pack(nn.Conv2d(inputs, outputs, 3), slope=0.2)
    seen = PlaneLayout(layout.height // 2, layout.width // 2) if kind.get("is_doubled") else layout
    pixels = torch.randn(BATCH, inputs, seen.height, seen.width, device=device)
    channels = layer.columns * 8
    trunks = [torch.randn_like(make_trunk(BATCH, channels, layout, device)) for _ in range(2)]
    return KernelStep(
        layer,
        tuple(to_planes(part, seen, dtype) for part in torch.split(pixels, 64, dim=1)),
        layout,
        residual=trunks[0] if kind.get("residual") else None,
        shortcut=trunks[1] if kind.get("shortcut") else None,
        gain=0.04,
        residual_gain=0.2,
        is_doubled=kind.get("is_doubled", False),
    )


def run(launch: object, step: KernelStep, outputs: int, *, picture: bool) -> tuple[Tensor, ...]:
    """Run a step by a launcher: planes and trunk, or a picture; where nothing was written,
    not a number.
    """
    source, channels = step.sources[0], step.layer.columns * 8
    if picture:
        shape = (BATCH, outputs, step.layout.height, step.layout.width)
        made = torch.full(shape, torch.nan, device=source.device)
        launch(replace(step, picture=made))  # type: ignore[operator]
        return (made,)
    planes = make_planes(BATCH, channels, step.layout, source.dtype, source.device)
    inside = planes[
        :, :, RING_PX : RING_PX + step.layout.height, RING_PX : RING_PX + step.layout.width
    ]
    inside.fill_(torch.nan)
    trunk = make_trunk(BATCH, channels, step.layout, source.device).fill_(torch.nan)
    launch(replace(step, planes=planes, trunk=trunk))  # type: ignore[operator]
    for edge in (planes[:, :, 0], planes[:, :, :, 0]):
        assert not edge.any()
    return from_planes(planes, step.layout).float(), from_planes(trunk, step.layout)


KINDS: dict[str, tuple[int, int, dict[str, bool]]] = {
    "first": (3, 64, {}),
    "growth": (96, 32, {}),
    "block's last": (192, 64, {"residual": True}),
    "group's last": (192, 64, {"residual": True, "shortcut": True}),
    "plain": (48, 48, {}),
    "doubled": (64, 64, {"is_doubled": True}),
    "picture of 3": (64, 3, {"picture": True}),
    "picture of 48": (64, 48, {"picture": True}),
}


@needs_cuda
@pytest.mark.parametrize(
    ("kind", "place", "dtype"), list(product(KINDS, PLACES, DTYPES)), ids=" ".join
)
@torch.inference_mode()
def test_a_step_is_what_torch_makes_of_it(kind: str, place: str, dtype: str) -> None:
    inputs, outputs, flags = KINDS[kind]
    height, width = PLACES[place]
    layout = PlaneLayout(height - height % 2, width - width % 2)
    device, short = torch.device("cuda"), DTYPES[dtype]
    is_picture = flags.get("picture", False)
    step = make_step(device, short, inputs, outputs, layout, **flags)

    made = run(Kernel(device, short), step, outputs, picture=is_picture)
    torch.cuda.synchronize()

    expected = run(launch_with_torch, step, outputs, picture=is_picture)
    tolerances = (torch.finfo(short).eps, 2e-5) if len(made) == 2 else (2e-5,)
    for one, other, tolerance in zip(made, expected, tolerances, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


@needs_cuda
@torch.inference_mode()
def test_each_image_of_a_batch_equals_its_result_alone_and_repeats_exactly() -> None:
    device = torch.device("cuda")
    kernel = Kernel(device, torch.float16)
    torch.manual_seed(0)
    network = RRDBNet(3, 3, 4, num_block=2).to_kernel(Target(torch.float16, device, kernel))
    pixels = torch.rand(3, 3, 40, 50, device=device)

    together = network(pixels)

    assert torch.equal(network(pixels), together)
    for at in range(3):
        assert torch.equal(network(pixels[at : at + 1])[0], together[at])


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["sm_80", "sm_89", "sm_90", "sm_120"])
def test_every_variant_compiles_for_the_gpus_it_is_meant_for(architecture: str) -> None:
    shared = {"sm_80": 164, "sm_89": 100, "sm_90": 228, "sm_120": 100}[architecture] * 1024
    steps = list_steps(RRDBNet(3, 3, 4, num_block=1), torch.float16)
    for variant in {variant_of(step) for step in steps}:
        tiling = choose_tiling(variant.columns, shared, shared - 1024)
        assert tiling is not None
        try:
            code = compile_cubin(architecture, definitions_of(variant, tiling, torch.float16))
        except BackendUnavailable as error:
            if "does not compile" in str(error):
                raise
            pytest.skip(f"NVIDIA's compiler is not here: {error}")
        assert code.startswith(b"\x7fELF")


def test_the_digest_is_of_the_source() -> None:
    assert len(digest()) == 16
    assert int(digest(), 16)
