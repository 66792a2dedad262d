"""Types of settings whose text needs parsing or checking, and the error of a wrong value."""

import importlib.metadata
import ipaddress
import re
import sys
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator

from upscaled.image.formats.table import OPTIONAL

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

PREFIX: Final = "UPSCALED_"
"""Prefix of the names of all settings in the environment."""

_EXTRA_FORMATS: Final = frozenset(name.lower() for name in OPTIONAL)
_BUCKET_URL: Final = re.compile(
    r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/(?!\.\.?(/|$))[A-Za-z0-9._-]+)*/?"
)
_NAME: Final = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")
_INTERNATIONAL_NAME: Final = re.compile(
    r"[a-z0-9_\x80-\U0010ffff-]+(\.[a-z0-9_\x80-\U0010ffff-]+)*\.?"
)
"""The name of a host in an `image_url`: any script, perhaps with the root's dot."""
_ADMIN_KEY: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}:[0-9a-f]{64}")
_HOST: Final = re.compile(r"[A-Za-z0-9._:-]+")


class SettingsError(ValueError):
    """A setting cannot be used; the text names the variable, its value and the reason."""


def _expand_home(value: Path) -> Path:
    """Expand `~`, which environment files (systemd, compose, .env) leave as it is."""
    try:
        return value.expanduser()
    except RuntimeError as error:
        raise ValueError(f"there is no such home folder ({error})") from None


def _split_networks(value: object) -> object:
    if not isinstance(value, str):
        return value
    return tuple(ipaddress.ip_network(part) for part in _split(value))


def _split_trusted(value: object) -> object:
    is_none = isinstance(value, str) and value.strip().lower() == "none"
    return () if is_none else _split_networks(value)


def _split_names(value: object) -> object:
    return tuple(_split(value.lower())) if isinstance(value, str) else value


def _split_exactly(value: object) -> object:
    return tuple(_split(value)) if isinstance(value, str) else value


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _split(value: str) -> list[str]:
    return [part.strip() for part in value.split(",") if part.strip()]


def _check_formats(value: tuple[str, ...]) -> tuple[str, ...]:
    unknown = sorted(set(value) - _EXTRA_FORMATS)
    if unknown:
        raise ValueError(f"{unknown[0]} is none of {', '.join(sorted(_EXTRA_FORMATS))}")
    if "heic" in value:
        require_package("heic needs", "pillow-heif")
    return value


def _check_admin_keys(value: tuple[str, ...]) -> tuple[str, ...]:
    if any(_ADMIN_KEY.fullmatch(each) is None for each in value):
        raise ValueError("must be NAME:SHA256 each, as `upscaled admin key NAME` prints them")
    if len({each.partition(":")[0] for each in value}) < len(value):
        raise ValueError("two keys have one name")
    return value


def _check_traces(value: bool) -> bool:
    if value:
        require_package("traces need", "opentelemetry-exporter-otlp-proto-http")
    return value


def _check_cluster(value: str) -> str:
    if value not in ("", "ray"):
        raise ValueError("must be ray or empty")
    if value:
        require_package("a cluster needs", "ray", "--no-deps -r requirements-cluster.lock")
    return value


def require_package(
    what_needs: str, name: str, arguments: str = "-r requirements-extras.lock"
) -> None:
    """Raise `ValueError`, with the way to install it, where a package is missing."""
    if not any(importlib.metadata.distributions(name=name)):
        raise ValueError(f"{what_needs} {name}: {sys.executable} -m pip install {arguments}")


def _check_base_url(value: str) -> str:
    if not value:
        return value
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be an http:// or https:// URL")
    if parts.query or parts.fragment or parts.username:
        raise ValueError("must hold no query, fragment or user name")
    if not _HOST.fullmatch(parts.hostname):
        raise ValueError("the host name has characters that host names have not")
    _ = parts.port  # raises where it is no port
    return value.rstrip("/")


def _check_results_url(value: str) -> str:
    if not value:
        return value
    if not _BUCKET_URL.fullmatch(value):
        raise ValueError("must be s3://BUCKET or s3://BUCKET/PREFIX, without keys and options")
    require_package("a bucket needs", "obstore")
    return value.rstrip("/")


def _check_hosts(value: tuple[str, ...]) -> tuple[str, ...]:
    return _check_names(value, _NAME)


def _check_source_hosts(value: tuple[str, ...]) -> tuple[str, ...]:
    return _check_names(value, _INTERNATIONAL_NAME)


def _check_names(value: tuple[str, ...], pattern: re.Pattern[str]) -> tuple[str, ...]:
    for host in value:
        try:
            ipaddress.ip_address(host)
        except ValueError:
            if not pattern.fullmatch(host):
                raise ValueError(f"{host} is no host name or address without a port") from None
    return value


def _check_origins(value: tuple[str, ...]) -> tuple[str, ...]:
    for origin in value:
        if origin != "*" and urlsplit(_check_base_url(origin)).path:
            raise ValueError(f"{origin} has a path; an origin is https://HOST or https://HOST:PORT")
    return tuple(origin.rstrip("/") for origin in value)


HomePath = Annotated[Path, AfterValidator(_expand_home)]
BaseUrl = Annotated[str, AfterValidator(_check_base_url)]
Cluster = Annotated[str, AfterValidator(_check_cluster)]
ResultsUrl = Annotated[str, AfterValidator(_check_results_url)]
Traces = Annotated[bool, AfterValidator(_check_traces)]
Networks = Annotated[tuple[Network, ...], BeforeValidator(_split_networks)]
TrustedNetworks = Annotated[tuple[Network, ...], BeforeValidator(_split_trusted)]
Hosts = Annotated[tuple[str, ...], BeforeValidator(_split_names), AfterValidator(_check_hosts)]
SourceHosts = Annotated[
    tuple[str, ...], BeforeValidator(_split_names), AfterValidator(_check_source_hosts)
]
Origins = Annotated[tuple[str, ...], BeforeValidator(_split_names), AfterValidator(_check_origins)]
AdminKeys = Annotated[
    tuple[str, ...], BeforeValidator(_split_exactly), AfterValidator(_check_admin_keys)
]
LogLevel = Annotated[str, BeforeValidator(_lower)]
ExtraFormats = Annotated[
    tuple[str, ...], BeforeValidator(_split_names), AfterValidator(_check_formats)
]
