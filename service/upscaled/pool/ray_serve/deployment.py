"""Describe the deployment of replicas to Ray Serve.

upscaled cluster manifest --replicas 2 --gpus 1 > serve.yaml
serve run --non-blocking serve.yaml
"""

from ray import serve

from upscaled.pool.ray_serve.options import DeploymentArguments, deployment_options
from upscaled.pool.ray_serve.replica import UpscaleReplica


def build(args: DeploymentArguments) -> serve.Application:
    """Return the application; Serve calls it with the arguments of a command or a config file.

    The options of a config file's `deployments` replace those of the arguments.
    """
    return serve.deployment(**deployment_options(args))(UpscaleReplica).bind()
