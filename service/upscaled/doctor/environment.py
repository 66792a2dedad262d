"""Parse the settings one by one, so that the other checks go on without those that are wrong."""

from collections.abc import Mapping
from typing import Final

from upscaled.config import PREFIX, Settings, SettingsError, load_settings
from upscaled.doctor.finding import Finding, failure, ok

CHECK: Final = "settings"
_DATA_DIR: Final = f"{PREFIX}DATA_DIR"
"""Its default is wrong for a user without a home folder, which is no fault of another variable."""


def read_settings(environment: Mapping[str, str]) -> tuple[Settings, dict[str, str]]:
    """Parse each `UPSCALED_*` variable alone; return valid settings, and faults by variable."""
    errors: dict[str, str] = {}
    valid: dict[str, str] = {}
    for name in _set_names(environment):
        try:
            load_settings({_DATA_DIR: "/", name: environment[name]})
            valid[name] = environment[name]
        except SettingsError as error:
            errors[name] = str(error)
    try:
        return load_settings(valid), errors
    except SettingsError as error:  # two that exclude each other
        return load_settings({}), {**errors, "one of the two": str(error)}


def check_settings(environment: Mapping[str, str]) -> list[Finding]:
    """Report each wrong variable; values are shown only where they are wrong."""
    _, errors = read_settings(environment)
    if errors:
        return [
            failure(CHECK, text, f"correct {name} or unset it; `upscaled config` explains each")
            for name, text in errors.items()
        ]
    names = _set_names(environment)
    if not names:
        return [ok(CHECK, "all at their defaults")]
    shown = ", ".join(name.removeprefix(PREFIX) for name in names)
    return [ok(CHECK, f"{len(names)} set, all valid: {shown}")]


def _set_names(environment: Mapping[str, str]) -> list[str]:
    return sorted(name for name, value in environment.items() if name.startswith(PREFIX) and value)
