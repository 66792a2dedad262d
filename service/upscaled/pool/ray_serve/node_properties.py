"""Describe each node of a cluster by what a task on it collects, such as versions; needs no Ray."""

import os
import platform
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from pydantic import BaseModel

from upscaled.pool.ray_serve.messages import ReplicaReport
from upscaled.pool.ray_serve.options import NODE_ENVIRONMENT

GCS_STORAGE: Final = "RAY_gcs_storage"
REDIS_ADDRESS: Final = "RAY_REDIS_ADDRESS"

_REPORTED: Final = (*NODE_ENVIRONMENT, GCS_STORAGE, REDIS_ADDRESS)
"""Variables that a node reports, none of them a secret."""

_REAPED_WITHIN_S: Final = 3.0
_LOOKED_EVERY_S: Final = 0.05


class NodeProperties(BaseModel, frozen=True, extra="forbid"):
    """Properties of a node, as its task collected them.

    ray, python, upscaled: versions, "" where the package is not installed. environment: the
    variables of `_REPORTED` that are set there. is_reaped: whether a process that lost its parent
    was gone once it had ended; None where that cannot be tried. adopted_by: the name of the process
    that became its parent, with its number.
    """

    ray: str
    python: str
    upscaled: str
    environment: dict[str, str]
    is_reaped: bool | None
    adopted_by: str


@dataclass(frozen=True, slots=True)
class NodeReport:
    """One node. properties: None where its task returned none; `trouble` says why."""

    address: str
    is_head: bool
    properties: NodeProperties | None
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class ClusterReport:
    """The state of a cluster, as `inspection` found it.

    status: of the deployment, as Ray Serve names it; "" where there is none. has_proxy: Serve's own
    HTTP proxy runs. unreadable: replicas whose report is of another version. trouble: why the
    status is not known, "" where it is.
    """

    nodes: Sequence[NodeReport]
    status: str
    has_proxy: bool
    replicas: Sequence[ReplicaReport]
    unreadable: int = 0
    trouble: str = ""


class ClusterUnreachable(Exception):
    """No cluster can be reached from this machine; the text says why, in one line."""


def collect_properties() -> str:
    """Return the `NodeProperties` of this machine as JSON; takes up to four seconds."""
    is_reaped, adopted_by = try_reaping()
    properties = NodeProperties(
        ray=_version_of("ray"),
        python=platform.python_version(),
        upscaled=_version_of("upscaled"),
        environment={name: os.environ[name] for name in _REPORTED if name in os.environ},
        is_reaped=is_reaped,
        adopted_by=adopted_by,
    )
    return properties.model_dump_json()


def try_reaping() -> tuple[bool | None, str]:
    """Leave an orphan that ends at once, and see whether its new parent reaps it (Linux).

    Returns:
        whether it was reaped, None where the system does not show it; and its new parent.
    """
    if not Path("/proc/self/stat").exists():
        return None, ""
    command = ("sh", "-c", "sleep 0.3 >/dev/null 2>&1 & echo $!")
    started = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    orphan = Path("/proc", started.stdout.strip())
    parent, give_up_at = "", time.monotonic() + _REAPED_WITHIN_S
    while (found := _read_parent(orphan)) is not None and time.monotonic() < give_up_at:
        parent = _describe(found) if found else parent
        time.sleep(_LOOKED_EVERY_S)
    return found is None, parent


def _read_parent(process: Path) -> int | None:
    """Return the number of a process's parent; None once the process is gone, zombies are not."""
    try:
        stat = (process / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(stat.rpartition(")")[2].split()[1])


def _describe(pid: int) -> str:
    try:
        name = Path("/proc", str(pid), "comm").read_text().strip()
    except (FileNotFoundError, PermissionError, ProcessLookupError):
        name = "unknown"
    return f"{name} ({pid})"


def _version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
