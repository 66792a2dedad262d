"""Find this machine's devices, and plan the workers of each, their cores and what they inherit.

settings.device          resolve_devices    plan_workers: the settings of each worker
"auto"                   "cuda:0,cuda:1"    "cuda:0" | "cuda:1"
"auto", two NUMA nodes   "cpu:0-7,cpu:8-15" "cpu:0-7" | "cpu:8-15"
"cpu,cpu"                "cpu:0-7,cpu:8-15" "cpu:0-7" | "cpu:8-15"
"cpu", two workers       "cpu"              "cpu" | "cpu", which share all cores

A worker decodes untrusted images, so it inherits how to find libraries and the device, the settings
that it needs, and nothing else: keys, database addresses and whatever else the operator's
environment holds stay with the front end.
"""

import logging
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Final

from upscaled.config import Settings, SettingsError
from upscaled.config.values import cores_of, name_cores
from upscaled.image.output import MAX_CANVAS_PX
from upscaled.logs import event
from upscaled.process.child import scrub_environment
from upscaled_models.processor import cores_by_node, divide_cores, usable_cores

NVIDIA_DRIVERS: Final = (Path("/proc/driver/nvidia/version"), Path("/dev/dxg"))
"""Files of which one exists where there may be an NVIDIA GPU: on Linux, and in WSL."""

_COUNT_COMMAND: Final = (sys.executable, "-m", "upscaled_models.backends.device")
_COUNT_S: Final = 120.0
"""Longest time to load torch from a slow disk and to initialise every GPU of a machine."""

_GPU_VARIABLES: Final = ("CUDA_", "NVIDIA_", "TORCH", "PYTORCH_")

_log = logging.getLogger(__name__)
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


class GpusUnknown(Exception):
    """The GPUs cannot be counted; the text says why."""


def count_gpus() -> int:
    """Return how many NVIDIA GPUs workers could use, or raise GpusUnknown.

    A child process counts them, since the front end loads no torch.
    """
    if not any(driver.exists() for driver in NVIDIA_DRIVERS):
        return 0
    environment = scrub_environment(os.environ, {"HOME", "LD_PRELOAD"}, _GPU_VARIABLES)
    try:
        counted = subprocess.run(  # noqa: S603  (our own program)
            _COUNT_COMMAND,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_COUNT_S,
            check=True,
        )
        return int(counted.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise GpusUnknown(f"cannot count the GPUs: {error}") from None


def resolve_devices(settings: Settings, gpus: int | None = None) -> Settings:
    """Return the settings with every device listed that is to have workers of its own.

    Where there is only one device the settings are unchanged, and its worker finds it.

    Args:
        gpus: the NVIDIA GPUs that workers could use; None: they are counted, where it matters.

    Raises:
        SettingsError: cores that this process may not run on, more parts than cores, or "cuda"
            where the GPUs cannot be counted.
    """
    name = settings.device
    gpus = _count_wanted(settings, gpus)
    if gpus > 1:
        return _with_devices(settings, [f"cuda:{number}" for number in range(gpus)])
    if name == "cpu" or (name == "auto" and not gpus):
        return _with_devices(settings, [name_cores(cores) for cores in _find_parts(settings)])
    if len(settings.devices) > 1 and settings.devices[0] == "cpu":
        try:
            parts = divide_cores(len(settings.devices))
        except ValueError as error:
            raise SettingsError(f"UPSCALED_DEVICE={name!r}: {error}") from None
        return _with_devices(settings, [name_cores(cores) for cores in parts])
    listed = frozenset[int]().union(*(cores_of(device) for device in settings.devices))
    if missing := listed - usable_cores():
        raise SettingsError(
            f"UPSCALED_DEVICE={name!r}: this process may not run on core {min(missing)}"
        )
    return settings


def _find_parts(settings: Settings) -> Sequence[Set[int]]:
    """Return the cores of each NUMA node; empty for one node, or if the settings share out cores.

    `auto` then stays as it is, without GPUs too, and its workers look for one themselves.
    """
    nodes = cores_by_node()
    is_shared_by_choice = settings.workers > 1 or settings.threads > 0
    return [] if len(nodes) == 1 or is_shared_by_choice else nodes


def _count_wanted(settings: Settings, gpus: int | None) -> int:
    """Return how many GPUs are to be used by a setting that does not list them."""
    name = settings.device
    if name not in ("auto", "cuda"):
        return 0
    try:
        return count_gpus() if gpus is None else gpus
    except GpusUnknown as error:
        if name == "cuda":
            advice = "list them (UPSCALED_DEVICE=cuda:0,cuda:1), or use the CPU (cpu)"
            raise SettingsError(f"UPSCALED_DEVICE={name!r}: {error}; {advice}") from None
        text = "%s; UPSCALED_DEVICE=auto uses %s. Run `upscaled doctor`, or list the GPUs (%s)"
        used = "the CPU alone" if _find_parts(settings) else "the first GPU that a worker finds"
        example = "UPSCALED_DEVICE=cuda:0,cuda:1"
        _log.error(text, error, used, example, extra=event("gpus_unknown"))
        return 0


def _with_devices(settings: Settings, devices: Sequence[str]) -> Settings:
    """Return the settings with these devices; unchanged where there are none."""
    return settings.model_copy(update={"device": ",".join(devices)}) if devices else settings


def plan_workers(settings: Settings) -> list[Settings]:
    """Return the settings of each worker: its one device, and how many workers share its cores.

    Workers with a list of cores share those; all other workers share all cores of the machine.
    """
    return [
        settings.model_copy(
            update={
                "device": device,
                "workers": settings.workers if cores_of(device) else settings.all_workers,
            }
        )
        for device in settings.devices
        for _ in range(settings.workers)
    ]


def share_canvas_px(settings: Settings) -> int:
    """Return the limit on the result pixels of all large images in flight at one worker.

    Workers on parts of one processor share its memory, so the limit is divided among them. A
    single image may exceed it while it is the only one at its worker.
    """
    parts = sum(bool(cores_of(device)) for device in settings.devices)
    return MAX_CANVAS_PX // max(1, parts)


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
