"""What a worker inherits: how to find libraries and the device, and nothing else.

A worker decodes untrusted images. Keys, database addresses and whatever else the operator's
environment holds stay with the front end.
"""

from collections.abc import Mapping

from upscaled.config import Settings
from upscaled_models.processor import count_cores

_NAMES = frozenset(
    {"PATH", "HOME", "LANG", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "LD_PRELOAD", "PYTHONPATH"}
    | {"PYTHONHASHSEED", "PYTHONDONTWRITEBYTECODE", "PYTHONWARNINGS", "VIRTUAL_ENV"}
)
_PREFIXES = ("LC_", "CUDA_", "NVIDIA_", "TORCH", "PYTORCH_", "OMP_", "KMP_", "MKL_", "DNNL_")
_THREADS = "OMP_NUM_THREADS"
_WAIT = "OMP_WAIT_POLICY"

# What of the settings a worker has no business with.
_FRONT_END_ONLY = {
    "database_url",
    "public_base_url",
    "source_private_cidrs",
    "source_only_hosts",
    "traces",
}


def worker_environment(settings: Settings, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of one worker, its share of the cores included.

    `settings.threads` wins over an `OMP_NUM_THREADS` of the operator's; without either the cores
    are shared out evenly. Threads that wait for one another sleep rather than spin, unless the
    operator says otherwise: spinning on a core that another process needs made a convolution on two
    busy cores twice as slow.
    """
    chosen = {
        name: value
        for name, value in environment.items()
        if name in _NAMES or name.startswith(_PREFIXES)
    }
    if settings.threads:
        chosen[_THREADS] = str(settings.threads)
    else:
        cores = count_cores()
        chosen.setdefault(_THREADS, str(max(1, cores // settings.workers)))
    chosen.setdefault(_WAIT, "PASSIVE")
    return chosen


def worker_settings(settings: Settings) -> dict[str, object]:
    """The settings a worker gets, as JSON values."""
    return settings.model_dump(mode="json", exclude=_FRONT_END_ONLY)
