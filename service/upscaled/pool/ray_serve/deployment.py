"""Describe the deployment of replicas to Ray Serve.

serve start --proxy-location Disabled
serve run --non-blocking --name upscaled --route-prefix / \\
    upscaled.pool.ray_serve.deployment:build replicas=2 num_gpus=1
"""

from typing import Final

from pydantic import BaseModel, ConfigDict, Field
from ray import serve

from upscaled.pool.ray_serve.messages import DEPLOYMENT
from upscaled.pool.ray_serve.replica import UpscaleReplica

_MOST_REQUESTS: Final = 1000
"""Requests that a replica takes, above any that it works on: the fair request queue of its pool
refuses the others, at once and with its own estimate of the wait."""


class DeploymentArguments(BaseModel):
    """Arguments of `build`.

    replicas: how many. num_cpus, num_gpus: what Ray reserves for each; its workers compute with as
    many threads as CPUs are reserved, unless `UPSCALED_THREADS` says otherwise.
    """

    model_config = ConfigDict(extra="forbid")

    replicas: int = Field(default=1, ge=1)
    num_cpus: float = Field(default=1, ge=0)
    num_gpus: float = Field(default=0, ge=0)


def build(args: DeploymentArguments) -> serve.Application:
    """Return the application; Serve calls it with the arguments of a command or a config file."""
    deployment = serve.deployment(
        name=DEPLOYMENT,
        num_replicas=args.replicas,
        max_ongoing_requests=_MOST_REQUESTS,
        ray_actor_options={"num_cpus": args.num_cpus, "num_gpus": args.num_gpus},
        health_check_period_s=2,
        health_check_timeout_s=10,
        graceful_shutdown_wait_loop_s=0.5,
        graceful_shutdown_timeout_s=60,
    )
    return deployment(UpscaleReplica).bind()
