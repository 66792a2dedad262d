"""Decide what a worker process inherits: its environment and its settings.

A worker decodes untrusted images, so it inherits how to find libraries and the device, the settings
that it needs, and nothing else: keys, database addresses and whatever else the operator's
environment holds stay with the front end.
"""

from collections.abc import Mapping
from typing import Final

from upscaled.config import Settings
from upscaled.process.child import scrub_environment

_INHERITED_NAMES: Final = frozenset({"HOME", "TZ", "LD_PRELOAD", "PYTHONHASHSEED"})
_INHERITED_PREFIXES: Final = (
    *("LC_", "CUDA_", "NVIDIA_", "TORCH", "PYTORCH_"),
    *("OMP_", "KMP_", "MKL_", "DNNL_"),
)

_FRONT_END_ONLY: Final = {
    "database_url",
    "database_password",
    "public_base_url",
    "source_private_cidrs",
    "source_only_hosts",
    "webhook_cidrs",
    "traces",
}
"""Settings that a worker has no use for, and that may hold secrets."""


def worker_environment(settings: Settings, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of one worker, its share of the cores included.

    A worker that is tied to cores has those alone. `settings.threads` wins over an
    `OMP_NUM_THREADS` of the operator's; without either the cores are shared out evenly. Threads
    that wait for one another sleep rather than spin, unless the operator says otherwise: spinning
    on a core that another process needs made a convolution on two busy cores twice as slow.
    """
    inherited = scrub_environment(environment, _INHERITED_NAMES, _INHERITED_PREFIXES)
    evenly = str(settings.shared_cores)
    defaults = {"OMP_NUM_THREADS": evenly, "OMP_WAIT_POLICY": "PASSIVE"}
    chosen = {"OMP_NUM_THREADS": str(settings.threads)} if settings.threads else {}
    return {**defaults, **inherited, **chosen}


def worker_settings(settings: Settings) -> dict[str, object]:
    """Return the settings that a worker gets, as JSON values."""
    return settings.model_dump(mode="json", exclude=_FRONT_END_ONLY)
