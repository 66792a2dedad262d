"""Types of settings whose text needs parsing or checking, and the error of a wrong value.

An entry of the setting of devices stands for one device with workers of its own, as in "cpu,cpu",
"cuda:0,cuda:1" or "cpu:0-15,cpu:16-31". Cores are listed as by taskset(1), which may contain
commas: in "cpu:0-15,32-47,cpu:16-31,48-63" a part that begins with a digit continues the list
before it.
"""

import importlib.metadata
import ipaddress
import re
import sys
from collections.abc import Iterable
from functools import partial
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
MAX_DEVICES: Final = 64
MAX_CORE: Final = 4095
"""Linux numbers no more: NR_CPUS is 8192 at most, and half of it on machines that exist."""

MEANING: Final = (
    "must be auto, cpu, cuda or mps; or cuda:N, each GPU once; or cpu twice or more, or cpu:CORES, "
    "as in cpu:0-15,cpu:16-31, each core once"
)

_ENTRY: Final = re.compile(
    r"auto|cpu|cuda|mps|cuda:\d{1,3}|cpu:\d{1,4}(-\d{1,4})?(,\d{1,4}(-\d{1,4})?)*"
)
_CORES: Final = "cpu:"
_GPU: Final = "cuda:"


class SettingsError(ValueError):
    """A setting cannot be used; the text names the variable, its value and the reason."""


def _expand_home(value: Path) -> Path:
    """Expand `~`, which environment files (systemd, compose, .env) and a default leave as it is."""
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
Hosts = Annotated[
    tuple[str, ...],
    BeforeValidator(_split_names),
    AfterValidator(partial(_check_names, pattern=_NAME)),
]
SourceHosts = Annotated[
    tuple[str, ...],
    BeforeValidator(_split_names),
    AfterValidator(partial(_check_names, pattern=_INTERNATIONAL_NAME)),
]
Origins = Annotated[tuple[str, ...], BeforeValidator(_split_names), AfterValidator(_check_origins)]
AdminKeys = Annotated[
    tuple[str, ...],
    BeforeValidator(lambda value: tuple(_split(value)) if isinstance(value, str) else value),
    AfterValidator(_check_admin_keys),
]
LogLevel = Annotated[str, BeforeValidator(_lower)]
ExtraFormats = Annotated[
    tuple[str, ...], BeforeValidator(_split_names), AfterValidator(_check_formats)
]


def split_devices(text: str) -> tuple[str, ...]:
    """Return the entries of the setting, as in ("cpu:0-15,32-47", "cpu:16-31,48-63")."""
    entries: list[str] = []
    for part in text.split(","):
        if entries and part[:1].isdigit() and entries[-1].startswith(_CORES):
            entries[-1] += f",{part}"
        else:
            entries.append(part)
    return tuple(entries)


def cores_of(device: str) -> frozenset[int]:
    """Return the cores that an entry lists; empty where it lists none: all of the process's."""
    cores: set[int] = set()
    if device.startswith(_CORES):
        for part in device.removeprefix(_CORES).split(","):
            first, _, last = part.partition("-")
            if last and int(last) < int(first):
                raise ValueError(MEANING)
            cores.update(range(int(first), int(last or first) + 1))
    return frozenset(cores)


def name_cores(cores: Iterable[int]) -> str:
    """Return the entry of a CPU's cores, as in "cpu:0-3,8"."""
    runs: list[list[int]] = []
    for core in sorted(cores):
        if runs and core == runs[-1][1] + 1:
            runs[-1][1] = core
        else:
            runs.append([core, core])
    return _CORES + ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in runs)


def kind_of(device: str) -> str:
    """Return an entry as torch names devices: without its cores."""
    return "cpu" if device.startswith(_CORES) else device


def _check(text: str) -> str:
    entries = split_devices(text)
    if not all(_ENTRY.fullmatch(entry) for entry in entries) or len(entries) > MAX_DEVICES:
        raise ValueError(MEANING)
    if all(entry.startswith(_GPU) for entry in entries):
        is_right = len({int(entry.removeprefix(_GPU)) for entry in entries}) == len(entries)
    elif all(entry.startswith(_CORES) for entry in entries):
        listed = [cores_of(entry) for entry in entries]
        all_cores = frozenset[int]().union(*listed)
        is_right = sum(map(len, listed)) == len(all_cores) and max(all_cores) <= MAX_CORE
    else:
        is_right = len(entries) == 1 or set(entries) == {"cpu"}
    if not is_right:
        raise ValueError(MEANING)
    return text


Devices = Annotated[str, AfterValidator(_check)]
"""The text of the setting, checked."""
