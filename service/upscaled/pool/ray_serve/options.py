"""Decide how replicas are deployed and what every node of a cluster has set; needs no Ray.

`deployment` gives these options to Ray Serve, `upscaled cluster manifest` prints them, and
`upscaled cluster check` compares a cluster with them.
"""

import re
from collections.abc import Mapping
from importlib.metadata import requires
from types import MappingProxyType
from typing import Any, Final

from pydantic import BaseModel, Field

from upscaled.pool.ray_serve.messages import APPLICATION, DEPLOYMENT

BUILDER: Final = "upscaled.pool.ray_serve.deployment:build"

RECONNECT_TIMEOUT: Final = "RAY_gcs_rpc_server_reconnect_timeout_s"
HEALTH_CHECK_PERIOD: Final = "RAY_health_check_period_ms"
HEALTH_CHECK_TIMEOUT: Final = "RAY_health_check_timeout_ms"

NODE_ENVIRONMENT: Final[Mapping[str, str]] = MappingProxyType(
    {
        "RAY_AUTH_MODE": "token",
        # By default, nodes and front ends abort a minute after the head is away.
        RECONNECT_TIMEOUT: "3600",
        # By default, a lost node is noticed after some 50 s.
        HEALTH_CHECK_PERIOD: "1000",
        HEALTH_CHECK_TIMEOUT: "2000",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
)
"""Variables that every node has before `ray start`, and each front end; the token comes beside."""

_MOST_REQUESTS: Final = 1000
"""Requests that a replica accepts, above any that it works on: the fair request queue of its pool
refuses the others, at once and with its own estimate of the wait."""

_RAY_REQUIREMENT: Final = re.compile(r"ray\[serve\]==(?P<series>\d+\.\d+)\.\*")


class DeploymentArguments(BaseModel, extra="forbid"):
    """Arguments of a deployment: how many replicas, and what each reserves.

    replicas: how many. num_cpus, num_gpus: what Ray reserves for each; its workers compute with as
    many threads as CPUs are reserved, unless `UPSCALED_THREADS` says otherwise. memory_mib: what
    Ray counts for each when it looks for a node, in MiB; 0: nothing. It limits nothing.
    """

    replicas: int = Field(default=1, ge=1)
    num_cpus: float = Field(default=1, ge=0)
    num_gpus: float = Field(default=0, ge=0)
    memory_mib: int = Field(default=0, ge=0)


def deployment_options(arguments: DeploymentArguments) -> dict[str, Any]:
    reserved: dict[str, float] = {"num_cpus": arguments.num_cpus, "num_gpus": arguments.num_gpus}
    if arguments.memory_mib:
        reserved["memory"] = arguments.memory_mib * 1024**2
    return {
        "name": DEPLOYMENT,
        "num_replicas": arguments.replicas,
        "max_ongoing_requests": _MOST_REQUESTS,
        "ray_actor_options": reserved,
        "health_check_period_s": 2,
        "health_check_timeout_s": 10,
        "graceful_shutdown_wait_loop_s": 0.5,
        "graceful_shutdown_timeout_s": 60,
    }


def serve_config(arguments: DeploymentArguments) -> dict[str, Any]:
    """Return Ray Serve's config file; a changed number of replicas in it restarts no other one."""
    application = {
        "name": APPLICATION,
        "route_prefix": "/",
        "import_path": BUILDER,
        "deployments": [deployment_options(arguments)],
    }
    # Replicas are called by handle: a proxy would be a second way in, past keys and credits.
    return {"proxy_location": "Disabled", "applications": [application]}


def required_ray() -> str:
    """Return the minor version of Ray that this version of upscaled works with, as "2.60"."""
    for requirement in requires("upscaled") or ():
        if match := _RAY_REQUIREMENT.match(requirement):
            return match["series"]
    raise RuntimeError("the installed package of upscaled names no version of ray")
