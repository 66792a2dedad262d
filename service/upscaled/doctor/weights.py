"""Check the models' files: those the settings choose must be whole, others should be."""

from typing import Final

from upscaled.config import Settings
from upscaled.doctor.finding import Finding, failure, ok, warning
from upscaled_models.errors import ModelError
from upscaled_models.files import FileState
from upscaled_models.store import ModelStore

CHECK: Final = "models"


def check_models(settings: Settings, store: ModelStore | None = None) -> list[Finding]:
    """Compare every file by size and SHA-256; a failure where the service would not start."""
    store = store or ModelStore(settings.models_dir)
    try:
        states = [each for each in store.verify() if not _is_second_name(store, each[0])]
    except PermissionError as error:
        advice = "give the file or folder to the user that runs the service"
        return [failure(CHECK, str(error), advice)]
    except (ModelError, OSError) as error:
        return [failure(CHECK, str(error), "install upscaled again: its own files are damaged")]
    named = {settings.model_x2, settings.model_x4} - {"auto"}
    findings = [
        _describe_fault(store, name, state, is_named=name in named)
        for name, state in states
        if state.is_fault
    ]
    findings += [
        _describe_missing(store, name) for name in sorted(named) if not _is_here(store, name)
    ]
    if findings:
        return findings
    whole = [name for name, state in states if state is FileState.OK]
    return [ok(CHECK, f"{len(whole)} here, all with the right SHA-256: {', '.join(whole)}")]


def _is_second_name(store: ModelStore, name: str) -> bool:
    """Return whether another name stands for the same file, which is reported once."""
    try:
        return bool(store.find(name).same_as)
    except ModelError:
        return False


def _is_here(store: ModelStore, name: str) -> bool:
    """Return whether the file is here; a damaged one is, and has a finding of its own."""
    try:
        return store.path(store.find(name)) is not None
    except ModelError:
        return name in store.names()


def _describe_missing(store: ModelStore, name: str) -> Finding:
    try:
        spec = store.find(name)
    except ModelError as error:
        advice = "correct UPSCALED_MODEL_X2 or _X4; `upscaled models list` names them all"
        return failure(CHECK, str(error), advice)
    return failure(
        CHECK,
        f"{name}: {store.target(spec)} is not there, and the settings choose it",
        f"`upscaled models fetch {name}`, or carry the file here and "
        f"`upscaled models add {name} FILE`",
    )


def _describe_fault(store: ModelStore, name: str, state: FileState, *, is_named: bool) -> Finding:
    """Describe a damaged file: a failure where it is needed.

    Shipped models replace others; the check of engines reports which one `auto` chooses.
    """
    try:
        spec = store.find(name)
    except ModelError as error:
        is_needed, source, found = is_named, "user", str(error)
    else:
        is_needed = is_named or spec.source == "default"
        source, found = spec.source, f"{name}: {state}: {store.target(spec)}"
    repair = {
        "default": "install upscaled again: its own files are damaged",
        "official": f"delete the file, then `upscaled models fetch {name}` or `models add`",
        "user": f"`upscaled models add {name} FILE` with a good copy, or delete it",
    }[source]
    return failure(CHECK, found, repair) if is_needed else warning(CHECK, found, repair)
