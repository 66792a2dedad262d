"""Open what scripts/evaluate measures: kernels, models, and the product's post-processing."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scripts.evaluation.cache import cached_upscaler
from scripts.evaluation.upscalers import (
    KERNELS,
    AnyUpscaler,
    FileUpscaler,
    Upscaler,
    graph_upscaler,
    int8_upscaler,
    kernel_upscaler,
    network_upscaler,
    open_network,
)
from upscaled.config import load_settings
from upscaled.image.decode import decode_file
from upscaled.image.harm import measure_harm
from upscaled.upscale.opening import open_core
from upscaled.upscale.post_process.colour_correction import correct_colours as correct_window
from upscaled.upscale.post_process.steps import is_neutral, neutralise
from upscaled.upscale.post_process.tempering import AUTO_STRENGTH, Tempering, temper
from upscaled_models.errors import UnknownModel
from upscaled_models.quantise.tracks import decode
from upscaled_models.store import ModelStore

Pixels = NDArray[np.uint8]

TEMPERED = "tempered"
COLOUR = "+colour"
VIVID_MODEL = "realesrgan-x4plus"


@dataclass(frozen=True)
class Options:
    """Options for opening models.

    models_dir: the weights. cache_dir: keeps the results of large networks; None: no cache.
    """

    scale: int
    models_dir: Path
    cache_dir: Path | None = None


@dataclass
class Chosen:
    """The upscalers by their label.

    in_8_bits: (label, label of the same in 8 bits). small_networks: labels of networks that are
    fast enough for every grey.
    """

    upscalers: dict[str, AnyUpscaler] = field(default_factory=dict)
    in_8_bits: list[tuple[str, str]] = field(default_factory=list)
    small_networks: list[str] = field(default_factory=list)


def open_chosen(names: Sequence[str], options: Options, *, int8: bool = False) -> Chosen:
    """Open the kernels and every named model.

    Args:
        names: models by name or weights files, either with `+colour` for the product's colour
            correction after it; kernels; or `tempered`: x4plus tempered by the project's own
            model, as the product does.
        int8: each also in 8 bits.

    Raises:
        ValueError: a model's native scale does not fit.
        UnknownModel, WeightsError, FileNotFoundError: a model cannot be opened.
    """
    chosen = Chosen()
    for kernel_name, kernel in KERNELS.items():
        chosen.upscalers[kernel_name] = kernel_upscaler(kernel, options.scale)
    for name in names:
        if name == TEMPERED:
            _add_tempered(chosen, options, int8=int8)
        elif name not in KERNELS:
            _add_model(chosen, name, options, int8=int8)
    return chosen


def _add_model(chosen: Chosen, name: str, options: Options, *, int8: bool) -> None:
    model = name.removesuffix(COLOUR)
    label, upscale, is_small = _open_model(model, options)
    opened = {label: upscale}
    if int8:
        opened[f"{label} int8"] = int8_upscaler(model, options.models_dir, options.scale)
    if model != name:
        opened = {f"{each}{COLOUR}": correct_colours(opened[each]) for each in opened}
    chosen.upscalers.update(opened)
    if int8:
        own, in_8_bits = opened
        chosen.in_8_bits.append((own, in_8_bits))
    chosen.small_networks += list(opened) if is_small else []


def correct_colours(upscale: Upscaler) -> Upscaler:
    """Return the upscaler with the product's colour correction after it."""

    def corrected(small: Pixels) -> Pixels:
        result = correct_window(small, upscale(small))
        return np.asarray(neutralise(result) if is_neutral(small) else result, np.uint8)

    return corrected


def temper_by(vivid: Upscaler, faithful: Upscaler, scale: int) -> FileUpscaler:
    """Return the vivid upscaler tempered by the faithful one, by the harm read from its file."""

    def upscale_file(file: bytes) -> Pixels:
        small = decode(file)
        tempering = Tempering.of(AUTO_STRENGTH, scale, measure_harm(decode_file(file)))
        return np.asarray(temper(vivid(small), faithful(small), tempering), np.uint8)

    return FileUpscaler(upscale_file)


def _add_tempered(chosen: Chosen, options: Options, *, int8: bool) -> None:
    _, faithful, _ = _open_model(f"upscaled-x{options.scale}-faithful", options)
    _, vivid, _ = _open_model(VIVID_MODEL, options)
    chosen.upscalers[TEMPERED] = temper_by(vivid, faithful, options.scale)
    if int8:
        vivid = int8_upscaler(VIVID_MODEL, options.models_dir, options.scale)
        label = f"{TEMPERED} int8"
        chosen.upscalers[label] = temper_by(vivid, faithful, options.scale)


def _open_model(name: str, options: Options) -> tuple[str, Upscaler, bool]:
    """Return its label, its upscaler of whole pictures in float32, and whether it is small.

    RRDB networks are large: they run by OpenVINO, and their results are cached.
    """
    label = Path(name).name.removesuffix(".safetensors").removesuffix(".pth")
    try:
        spec = ModelStore(options.models_dir).find(name)
    except UnknownModel:
        spec = None
    if spec and spec.family == "rrdb" and not Path(name).is_file():
        _check_scale(name, spec.native_scale, options.scale)
        upscale = graph_upscaler(name, options.models_dir, options.scale)
        if options.cache_dir:
            upscale = cached_upscaler(upscale, options.cache_dir / f"{label}-x{options.scale}")
        return label, upscale, False
    network, native_scale = open_network(name, options.models_dir)
    _check_scale(name, native_scale, options.scale)
    return label, network_upscaler(network, native_scale, options.scale), True


def _check_scale(name: str, native_scale: int, scale: int) -> None:
    if native_scale % scale:
        raise ValueError(f"{name} is a x{native_scale} model: it cannot be measured at x{scale}")


@contextmanager
def open_product(scale: int) -> Iterator[Callable[[bytes], Pixels]]:
    """Open the product itself, from a file to the result, with the environment's settings.

    Raises:
        the errors of opening a worker: settings, models, device.
    """
    with open_core(load_settings()) as upscaler:

        def upscale_file(file: bytes) -> Pixels:
            return decode(upscaler.upscale(file, scale).data)

        yield upscale_file
