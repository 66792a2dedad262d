"""Read secrets from files, as container platforms give them: `UPSCALED_DATABASE_URL_FILE`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from upscaled.config.values import PREFIX, SettingsError

SECRETS: Final = ("database_url", "database_password", "mcp_api_key", "admin_keys")
"""Settings that hold a secret: each may be given by a file instead, under its name and `_FILE`."""
FILES: Final = {f"{name}_file": name for name in SECRETS}
"""The names of those files, each with the setting that is in it."""


def read_secret_files(values: Mapping[str, str]) -> dict[str, str]:
    """Return the values with the content of each file in place of its name.

    A file is read once, at the start; the line end behind its only line is no part of the secret.
    The texts of errors name the file, and never show what is in it.

    Args:
        values: what the environment gives, by the names of settings and of `FILES`.

    Raises:
        SettingsError: a file cannot be read or is not one line, or the setting is given too.
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
        text = file.read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as error:
        raise SettingsError(f"{given}: {error.strerror}") from None
    except UnicodeError:
        raise SettingsError(f"{given}: holds no text") from None
    if not text or len(text.splitlines()) > 1:
        raise SettingsError(f"{given}: must hold one line with the secret")
    return text
