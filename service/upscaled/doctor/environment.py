"""Parse the settings one by one, so that the other checks go on without those that are wrong."""

from collections.abc import Mapping
from dataclasses import dataclass

from upscaled.config import PREFIX, Settings, SettingsError, load_settings
from upscaled.doctor.finding import Finding, failure, ok

CHECK = "settings"


@dataclass(frozen=True, slots=True)
class ParsedEnvironment:
    """Environment as it was parsed.

    settings: those that are valid, the rest at their defaults. names: variables that are set.
    errors: by variable, what is wrong with it.
    """

    settings: Settings
    names: tuple[str, ...]
    errors: Mapping[str, str]


def read_environment(environment: Mapping[str, str]) -> ParsedEnvironment:
    """Parse each `UPSCALED_*` variable alone, as `load_settings` parses them together."""
    names = sorted(name for name, value in environment.items() if name.startswith(PREFIX) and value)
    errors: dict[str, str] = {}
    for name in names:
        try:
            load_settings({name: environment[name]})
        except SettingsError as error:
            errors[name] = str(error)
    valid = {name: environment[name] for name in names if name not in errors}
    return ParsedEnvironment(load_settings(valid), tuple(names), errors)


def check_settings(parsed: ParsedEnvironment) -> list[Finding]:
    """Report each wrong variable; values are shown only where they are wrong."""
    if parsed.errors:
        return [
            failure(
                CHECK,
                text,
                f"correct {name} or unset it; `upscaled config` explains each",
            )
            for name, text in parsed.errors.items()
        ]
    if not parsed.names:
        return [ok(CHECK, "all at their defaults")]
    shown = ", ".join(name.removeprefix(PREFIX) for name in parsed.names)
    return [ok(CHECK, f"{len(parsed.names)} set, all valid: {shown}")]
