"""The settings as they are parsed, of which some may be wrong: the other checks go on without."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from upscaled.config import PREFIX, Settings, SettingsError, load_settings
from upscaled.doctor.finding import Finding, failure, ok

CHECK = "settings"

_PASSWORD = re.compile(r"(://[^:/@\s]*):\S*@")


@dataclass(frozen=True, slots=True)
class ParsedEnvironment:
    """settings: those that are valid, the rest at their defaults. names: variables that are set.
    troubles: variable to what is wrong with it.
    """

    settings: Settings
    names: tuple[str, ...]
    troubles: Mapping[str, str]


def read_environment(environment: Mapping[str, str]) -> ParsedEnvironment:
    """Each `UPSCALED_*` variable judged alone, as `load_settings` judges them together."""
    names = sorted(name for name, value in environment.items() if name.startswith(PREFIX) and value)
    troubles: dict[str, str] = {}
    for name in names:
        try:
            load_settings({name: environment[name]})
        except SettingsError as error:
            troubles[name] = str(error)
    valid = {name: environment[name] for name in names if name not in troubles}
    return ParsedEnvironment(load_settings(valid), tuple(names), troubles)


def check_settings(parsed: ParsedEnvironment) -> list[Finding]:
    """A failure for each wrong variable; values are shown only where they are wrong."""
    if parsed.troubles:
        return [
            failure(
                CHECK,
                _PASSWORD.sub(r"\1:***@", text),
                f"correct {name} or unset it; `upscaled config` explains each",
            )
            for name, text in parsed.troubles.items()
        ]
    if not parsed.names:
        return [ok(CHECK, "all at their defaults")]
    shown = ", ".join(name.removeprefix(PREFIX) for name in parsed.names)
    return [ok(CHECK, f"{len(parsed.names)} set, all valid: {shown}")]
