"""The weights that are measured with: real ones where they are at hand, else random ones."""

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from scripts.benchmark.pictures import make_pixels
from upscaled.config import load_settings
from upscaled_models.families import Shape
from upscaled_models.families.compact import srvgg_shape
from upscaled_models.families.rrdb import rrdb_shape
from upscaled_models.official import WEIGHTS_PACKAGE, WEIGHTS_PACKAGE_VERSION
from upscaled_models.packaged import install_packaged, missing_packaged
from upscaled_models.store import ModelStore
from upscaled_models.weights import build_network

GENERAL = "realesr-general-x4v3"
GENERAL_NAMES = ("realesr-general-x4v3.pth", "realesr-general-x4v3.fp16.safetensors")
ANIME = "realesr-animevideov3"
X4PLUS = "realesrgan-x4plus"
X4PLUS_ANIME = "realesrgan-x4plus-anime-6b"
_RANDOM = "random-"
RRDB = f"{_RANDOM}x4plus"
LIVELY_RRDB = f"{_RANDOM}x4plus-lively"
RANDOM_GENERAL = f"{_RANDOM}general"
CALIBRATION_PX = 48
RESULT_SPREAD = 0.2
MEAN = 0.5
FAINT_SPREAD = 0.02
DARK_MEAN = 0.2
"""bfloat16 is four times as fine there as above the middle of the range."""


@dataclass(frozen=True, slots=True)
class Weights:
    """A model of the store of `data_dir` by its name there, and where its values come from."""

    model: str
    origin: str


def add_general(data_dir: Path, file: Path | None) -> Weights:
    """realesr-general-x4v3 from `file`, the user's own store or `TEST_DATA_DIR`; else random.

    How fast a network is does not depend on the values of its weights.
    """
    store = ModelStore(data_dir / "models")
    for candidate in (file, *_places(GENERAL_NAMES)):
        if candidate is None or not candidate.is_file():
            continue
        name = GENERAL if candidate.name == GENERAL_NAMES[0] else "general-x4v3"
        store.add(name, candidate)
        return Weights(name, candidate.name)
    _add_random(store, RANDOM_GENERAL, "srvgg", srvgg_shape(4, 32))
    return Weights(RANDOM_GENERAL, "random")


def add_anime(data_dir: Path) -> Weights | None:
    """realesr-animevideov3, where its file or its package is at hand."""
    store = ModelStore(data_dir / "models")
    for candidate in _places((f"{ANIME}.pth",)):
        if candidate.is_file():
            store.add(ANIME, candidate)
            return Weights(ANIME, candidate.name)
    return add_packaged(data_dir, ANIME)


def add_packaged(data_dir: Path, name: str) -> Weights | None:
    """An official model with its real weights, where the package that has them is installed."""
    store = ModelStore(data_dir / "models")
    for spec in missing_packaged(store):
        if spec.name == name:
            install_packaged(spec, store)
            break
    if store.path(store.find(name)) is None:
        return None
    return Weights(name, f"{WEIGHTS_PACKAGE} {WEIGHTS_PACKAGE_VERSION}")


def add_rrdb(data_dir: Path, num_block: int = 23) -> Weights:
    """x4plus's shape with fresh weights, for speed: the last layer alone is brought into range.

    They are no test of precision. `bring_to_life` would be one too hard to pass: bfloat16 is then
    46 dB from float32, for random filters are as loud where a picture has nothing but rounding.
    """
    store = ModelStore(data_dir / "models")
    _add_random(store, RRDB, "rrdb", rrdb_shape(4, num_block), is_lively=False)
    return Weights(RRDB, "random")


def add_lively_rrdb(data_dir: Path, num_block: int = 23) -> Weights:
    """x4plus's shape with random weights for seams (see `bring_to_life`)."""
    store = ModelStore(data_dir / "models")
    _add_random(store, LIVELY_RRDB, "rrdb", rrdb_shape(4, num_block))
    return Weights(LIVELY_RRDB, "random")


def add_small_compact(data_dir: Path) -> Weights:
    """A compact network so small that a test can run it."""
    store = ModelStore(data_dir / "models")
    _add_random(store, RANDOM_GENERAL, "srvgg", srvgg_shape(4, 2, num_feat=8))
    return Weights(RANDOM_GENERAL, "random")


def is_random(model: str) -> bool:
    return model.startswith(_RANDOM)


def _places(names: tuple[str, ...]) -> list[Path]:
    folders = [load_settings({}).models_dir]
    if "TEST_DATA_DIR" in os.environ:
        folders.append(Path(os.environ["TEST_DATA_DIR"]) / "weights")
    return [folder / name for folder in folders for name in names]


def _add_random(
    store: ModelStore, name: str, family: str, shape: Shape, *, is_lively: bool = True
) -> None:
    torch.manual_seed(0)
    network = build_network(family, shape)  # type: ignore[arg-type]
    bring_to_life(network) if is_lively else bring_into_range(network, FAINT_SPREAD, DARK_MEAN)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "random.safetensors"
        save_file({key: value.contiguous() for key, value in network.state_dict().items()}, file)
        store.add(name, file)


@torch.inference_mode()
def bring_to_life(network: nn.Module) -> None:
    """Give every convolution a result as strong as its input, and the last one a picture's range.

    Fresh weights fade: after a few blocks nothing of what they see is left, and any halo would do.
    Here each dense block adds a fifth of its input's strength, each group of three another, from
    weights that are as large at a kernel's edge as in its middle: far more reach than training
    leaves a network.
    """
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    for layer in layers:
        nn.init.normal_(layer.weight, std=(9 * layer.in_channels) ** -0.5)
        bias_of(layer).zero_()
    handles = [layer.register_forward_hook(_normalise(layer, 1.0)) for layer in layers[:-1]]
    bring_into_range(network, RESULT_SPREAD)
    for handle in handles:
        handle.remove()


@torch.inference_mode()
def bring_into_range(network: nn.Module, spread: float, mean: float = MEAN) -> None:
    """Scale and shift the last convolution: its result has that spread and mean."""
    last = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)][-1]
    is_added = last.out_channels != 3  # to the source's own colours, where it is shuffled
    handle = last.register_forward_hook(_normalise(last, spread / 4 if is_added else spread))
    pixels = torch.from_numpy(make_pixels(CALIBRATION_PX, CALIBRATION_PX).copy())
    network(pixels.permute(2, 0, 1)[None].float() / 255)
    handle.remove()
    if not is_added:
        bias_of(last).add_(mean)


def bias_of(layer: nn.Conv2d) -> Tensor:
    if layer.bias is None:
        raise ValueError(f"{layer} has no biases")
    return layer.bias


def _normalise(layer: nn.Conv2d, spread: float) -> Callable[[nn.Module, object, Tensor], Tensor]:
    """A hook that scales and shifts the layer once so that its result has mean 0 and `spread`."""

    def scale(_layer: nn.Module, _given: object, result: Tensor) -> Tensor:
        mean, gain = result.mean(dim=(0, 2, 3)), spread / result.std()
        layer.weight.mul_(gain)
        bias_of(layer).copy_(-mean * gain)
        shifted: Tensor = (result - mean[:, None, None]) * gain
        return shifted

    return scale
