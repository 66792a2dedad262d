"""Read the settings from the environment and from files of secrets, and describe them.

A wrong value, or a variable that no setting has, stops the start. Secrets may be in files, as
container platforms give them: `UPSCALED_DATABASE_URL_FILE`.
"""

import ast
import difflib
import inspect
import os
import re
from collections.abc import Mapping
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from upscaled.config.settings import Settings
from upscaled.config.values import PREFIX, SettingsError
from upscaled.process.named_file import NamedFileUnusable, read_named_file

_PATTERN_MEANINGS: Final = {
    f"{PREFIX}AUTH": "must be key or none",
    f"{PREFIX}PRECISION": "must be exact, auto or fast",
    f"{PREFIX}TEMPER": "must be auto, off or a number from 0 to 1",
    f"{PREFIX}LOG_LEVEL": "must be debug, info, warning or error",
    f"{PREFIX}LOG_FORMAT": "must be auto, json or text",
}
"""Printed for a value that does not match a setting's pattern, instead of the pattern."""

_PASSWORD: Final = re.compile(r"(://[^:/@\s]*):\S*@")
_KEY: Final = re.compile(r"(up[ak]_)[A-Za-z0-9_-]+")
"""A key of ours: one that was set instead of its hash, or under a misspelt name."""

_SERVICE_LINK: Final = re.compile(r"service_(host|port(_\w+)?)|port_\d+_(tcp|udp|sctp)(_\w+)?")
_SERVICE_LINK_PORT: Final = re.compile(r"(tcp|udp|sctp)://\S+")
"""Variables that Kubernetes sets in every container of a namespace with a Service named "upscaled".
One of them has the name of a setting, and is recognised by its value: tcp://10.0.0.1:8000."""

ALIASES: Final = {
    "allowed_source_cidrs": "source_private_cidrs",
    "allowed_source_hosts": "source_only_hosts",
}
"""Former names of settings, each with its name of today."""
SECRETS: Final = ("database_url", "database_password", "mcp_api_key", "admin_keys")
"""Settings that hold a secret: each may be given by a file instead, under its name and `_FILE`."""
FILES: Final = {f"{name}_file": name for name in SECRETS}
"""The names of those files, each with the setting that is in it."""


def load_settings(environment: Mapping[str, str] | None = None, **overrides: object) -> Settings:
    """Read the settings of this process from its environment, the only place that does.

    Args:
        environment: read instead of `os.environ`. An empty value counts as unset.
        overrides: field values that win over the environment; old names count here too.

    Raises:
        SettingsError: a value out of range, of the wrong kind or not in UTF-8, an unknown
            `UPSCALED_` name, a setting given by its old name and its new one, or a file of a secret
            that is not to be had.
    """
    environment = os.environ if environment is None else environment
    given = {
        name.removeprefix(PREFIX).lower(): value
        for name, value in environment.items()
        if name.startswith(PREFIX) and value != ""
    }
    values = {name: value for name, value in given.items() if not _is_service_link(name, value)}
    _refuse_unknown(values)
    _refuse_other_encodings(values)
    values = read_secret_files(values)
    _refuse_unknown_overrides(overrides)
    aliases = _find_aliases(values)
    renamed: dict[str, object] = {aliases.get(name, name): value for name, value in values.items()}
    renamed |= {ALIASES.get(name, name): value for name, value in overrides.items()}
    try:
        return Settings.model_validate(renamed)
    except ValidationError as error:
        given_names = {new: old for old, new in aliases.items()}
        raise SettingsError(_describe(error, given_names)) from None


def find_near_names(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that are ignored, but one letter or their case away from a setting's.

    Each with the setting that it was probably meant for; a name in small letters counts too.
    """
    known = [PREFIX + name.upper() for name in (*Settings.model_fields, *ALIASES, *FILES)]
    return {
        name: setting
        for name, value in environment.items()
        if value != "" and not name.startswith(PREFIX)
        for setting in known
        if _differ_by_one_letter(name.upper(), setting)
    }


def describe_settings(settings: Settings) -> list[tuple[str, str, str, str]]:
    """Return rows of (variable, value, default, meaning), in the table's order."""
    meanings = _read_meanings()
    return [
        (
            PREFIX + name.upper(),
            _as_text(getattr(settings, name)),
            _as_text(field.get_default(call_default_factory=True, validated_data={})),
            " ".join(meanings[name].split()),
        )
        for name, field in Settings.model_fields.items()
    ]


def _read_meanings() -> dict[str, str]:
    """Read the docstring below each field of `Settings` out of its source.

    Only where they are shown: pydantic would read them at the start of every process, in which
    it would take a quarter of the time that loading the settings takes.
    """
    return {
        ast.unparse(field.target): str(ast.literal_eval(docstring.value))
        for table in ast.parse(inspect.getsource(Settings)).body
        if isinstance(table, ast.ClassDef)
        for field, docstring in pairwise(table.body)
        if isinstance(field, ast.AnnAssign) and isinstance(docstring, ast.Expr)
    }


def _is_service_link(name: str, value: str) -> bool:
    if name == "port":
        return _SERVICE_LINK_PORT.fullmatch(value) is not None
    return _SERVICE_LINK.fullmatch(name) is not None


def _differ_by_one_letter(first: str, second: str) -> bool:
    """Return whether one letter at most is another, is missing, or is too many."""
    pairs = zip(first, second, strict=False)
    alike = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    first, second = first[alike:], second[alike:]
    return first[1:] == second[1:] or first[1:] == second or first == second[1:]


def _refuse_unknown(values: Mapping[str, str]) -> None:
    """Raise SettingsError for a name that no setting has, with the one that was probably meant."""
    for name, value in values.items():
        if name in Settings.model_fields or name in ALIASES or name in FILES:
            continue
        near = difflib.get_close_matches(name, [*Settings.model_fields, *FILES], n=1)
        hint = f"; did you mean {PREFIX}{near[0].upper()}?" if near else ""
        shown = _show(value)
        raise SettingsError(f"{PREFIX}{name.upper()}={shown}: there is no such setting{hint}")


def _refuse_unknown_overrides(overrides: Mapping[str, object]) -> None:
    for name, value in overrides.items():
        if name not in Settings.model_fields and name not in ALIASES:
            near = difflib.get_close_matches(name, Settings.model_fields, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise SettingsError(f"{name}={_show(value)}: there is no such setting{hint}")


def _refuse_other_encodings(values: Mapping[str, str]) -> None:
    """Raise SettingsError for a value that is not in UTF-8: workers are sent settings as JSON."""
    for name, value in values.items():
        try:
            value.encode()
        except UnicodeEncodeError:
            shown = "" if name in SECRETS else f"={_show(value)}"
            raise SettingsError(f"{PREFIX}{name.upper()}{shown}: must be text in UTF-8") from None


def _find_aliases(values: Mapping[str, str]) -> dict[str, str]:
    """Return the former names among the given ones, each with the setting that it means."""
    found = {old: new for old, new in ALIASES.items() if old in values}
    for old, new in found.items():
        if new in values:
            variable, alias = PREFIX + new.upper(), PREFIX + old.upper()
            raise SettingsError(
                f"{variable}={values[new]!r} and {alias}={values[old]!r}: one setting by its name "
                f"and its old name; keep {variable}"
            )
    return found


def _describe(error: ValidationError, given_names: Mapping[str, str]) -> str:
    """Return one line for each wrong value, with the name by which it was given."""
    lines = []
    for problem in error.errors():
        field = str(problem["loc"][0]) if problem["loc"] else ""
        name = PREFIX + given_names.get(field, field).upper() if field else "settings"
        reason = _PATTERN_MEANINGS.get(name) or problem["msg"].removeprefix("Value error, ")
        lines.append(f"{name}={_show(problem['input'])}: {reason}")
    return "\n".join(lines)


def _show(value: object) -> str:
    """Return a wrong value as it was given, but for the password of a URL, and for keys."""
    shown = repr(str(value) if isinstance(value, Path) else value)
    return _KEY.sub(r"\1***", _PASSWORD.sub(r"\1:***@", shown))


def _as_text(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(str(item) for item in value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def read_secret_files(values: Mapping[str, str]) -> dict[str, str]:
    """Return the values with the content of each file in place of its name, read once.

    The line end behind its only line is no part of the secret.

    Raises:
        SettingsError: a file cannot be read or is not one line, or the setting is given too. The
            text names the file, and never shows what is in it.
    """
    read = {name: value for name, value in values.items() if name not in FILES}
    for name in FILES.keys() & values.keys():
        setting, given = FILES[name], f"{PREFIX}{name.upper()}={values[name]}"
        if setting in values:
            variable = PREFIX + setting.upper()
            raise SettingsError(f"{given}: {variable} is set too; keep one of the two")
        read[setting] = _read_line(Path(values[name]).expanduser(), given)
    return read


def _read_line(file: Path, given: str) -> str:
    try:
        text = read_named_file(file, takes_pipe=True).decode().rstrip("\r\n")
    except NamedFileUnusable as error:
        raise SettingsError(f"{given}: {error}") from None
    except UnicodeError:
        raise SettingsError(f"{given}: holds no text") from None
    if not text or len(text.splitlines()) > 1:
        raise SettingsError(f"{given}: must hold one line with the secret")
    return text
