"""Check the settings, each by itself, and whether requests without an API key reach the service."""

from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from upscaled.config import PREFIX, Settings, SettingsError, find_near_names, load_settings
from upscaled.doctor.finding import Finding, failure, ok, warning
from upscaled.process.listener import is_loopback

CHECK: Final = "settings"
_DATA_DIR: Final = f"{PREFIX}DATA_DIR"
"""Its default is wrong for a user without a home folder, which is no fault of another variable."""
ACCESS: Final = "access"


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
    return [*_check_values(environment), *_check_near_names(environment)]


def _check_near_names(environment: Mapping[str, str]) -> list[Finding]:
    return [
        warning(CHECK, f"{name} is no setting, and is ignored", f"did you mean {setting}?")
        for name, setting in find_near_names(environment).items()
    ]


def _check_values(environment: Mapping[str, str]) -> list[Finding]:
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


def check_access(settings: Settings, host: str) -> list[Finding]:
    """Report who may send requests, where it is not who has a key, and a port that stays closed."""
    return [*_check_open(settings, host), *_check_admin_port(settings)]


def _check_admin_port(settings: Settings) -> list[Finding]:
    if not settings.admin_port or settings.admin_keys:
        return []
    return [
        warning(
            ACCESS,
            f"nothing listens on UPSCALED_ADMIN_PORT={settings.admin_port}: UPSCALED_ADMIN_KEYS "
            "names no administrator",
            "`upscaled admin key NAME` makes a key and the setting, or unset UPSCALED_ADMIN_PORT",
        )
    ]


def _check_open(settings: Settings, host: str) -> list[Finding]:
    """Report `UPSCALED_AUTH=none`: a warning where `host` is not for this computer alone."""
    if settings.auth != "none":
        return []
    open_to = find_exposed(settings, host)
    if not open_to:
        return [ok(ACCESS, "without an API key, from this computer alone")]
    return [
        warning(
            ACCESS,
            f"requests that reach {' or '.join(open_to)} need no API key",
            "unset UPSCALED_AUTH, or serve on --host 127.0.0.1; keep it only in a network whose "
            "every machine you trust",
        )
    ]


def find_exposed(settings: Settings, host: str) -> list[str]:
    """Return where others than this computer reach a service that listens on `host` ("": all)."""
    host = host or "0.0.0.0"  # noqa: S104  (named only)
    public_host = urlsplit(settings.public_base_url).hostname or ""
    return [each for each in (host, public_host) if each and not is_loopback(each)]
