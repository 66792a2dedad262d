"""Read the settings of a replica: those of its node, with what Ray has reserved for it.

node's settings        reserved        the replica's workers
UPSCALED_DEVICE=auto   2 GPUs, 8 CPUs  cuda:0 | cuda:1, each with 4 threads
UPSCALED_DEVICE=auto   4 CPUs          cpu, with 4 threads
UPSCALED_DEVICE=cpu,cpu  4 CPUs        cpu:0-7 | cpu:8-15, each with 2 threads
"""

import os
from collections.abc import Mapping
from typing import Final

from upscaled.config import Settings, load_settings
from upscaled.pool.devices import resolve_devices

_RESERVED_CPUS: Final = "OMP_NUM_THREADS"
"""Ray sets it in a replica to the CPUs that it has reserved, rounded down and at least 1, unless
the node was started with it. Of GPUs a replica sees only those that are reserved."""


def load_replica_settings(
    environment: Mapping[str, str] = os.environ, gpus: int | None = None
) -> Settings:
    """Return the settings with every device listed, and the reserved CPUs shared out to workers.

    `UPSCALED_THREADS` wins over what is reserved. A replica on CPUs is not divided between NUMA
    nodes: only a part of the machine is reserved for it, and other replicas may have the rest.

    Raises:
        SettingsError: a value that no setting may have, cores that this process may not run on, or
            more parts than cores.
    """
    settings = load_settings(environment)
    reserved = environment.get(_RESERVED_CPUS, "")
    if settings.threads or not reserved.isdecimal():
        return resolve_devices(settings, gpus)
    # With a number of threads, NUMA nodes do not count.
    resolved = resolve_devices(settings.model_copy(update={"threads": int(reserved)}), gpus)
    threads = max(1, int(reserved) // resolved.all_workers)
    return resolved.model_copy(update={"threads": threads})
