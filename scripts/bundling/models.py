"""The models that travel with a bundle: every one that was fetched, carried in or added here."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from upscaled_models.files import FileState
from upscaled_models.quantise.files import quantised_path, record_path
from upscaled_models.registry import ModelSpec
from upscaled_models.store import ModelStore


class UnfitModel(ValueError):
    """A model's file is not what it should be; the text names it."""


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One file of a model: where it lies, and where under the folder of models it belongs."""

    spec: ModelSpec
    path: Path
    relative: Path


def find_model_files(store: ModelStore) -> list[ModelFile]:
    """List the files of all models but the shipped ones, which are inside the package.

    Raises:
        UnfitModel: one is damaged, and would not be taken over there either.
    """
    files: list[ModelFile] = []
    for name, state in store.verify():
        if state is FileState.NOT_FETCHED:
            continue
        if state.is_fault:
            raise UnfitModel(f"model {name}: {state} (`upscaled models verify` says more)")
        spec = store.find(name)
        if spec.source != "default":
            weights = store.target(spec)
            files += [
                ModelFile(spec, path, path.relative_to(store.models_dir))
                for path in _files_of(weights, spec)
            ]
    return files


def _files_of(weights: Path, spec: ModelSpec) -> Iterator[Path]:
    yield weights
    if spec.source == "user":
        yield weights.parent / f"{spec.name}.json"
    for path in (quantised_path(weights), record_path(weights)):
        if path.is_file():
            yield path
