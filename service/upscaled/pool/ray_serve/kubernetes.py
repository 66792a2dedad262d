"""Describe a deployment to KubeRay: the RayService with the pods of its head and its replicas.

What is the same in all deployments stands in `rayservice.yaml`, with its reasons.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from upscaled.pool.ray_serve.options import NODE_ENVIRONMENT, DeploymentArguments, serve_config

NAME: Final = "upscaled"
GROUP: Final = "replicas"
_TEMPLATE: Final = Path(__file__).with_name("rayservice.yaml")


@dataclass(frozen=True, slots=True)
class PodOptions:
    """Options of a replica's pod beside those of the deployment.

    image: of head and replicas; front ends have the same one. cpus: reserved, in cores. memory_mib:
    reserved and limited, in MiB. gpus: whole ones.
    """

    image: str
    cpus: float
    memory_mib: int
    gpus: int


class _BlockDumper(yaml.SafeDumper):
    """Writes texts of several lines as they are, and what stands twice in full."""

    def represent_str(self, data: str) -> yaml.ScalarNode:
        """Return the node of a text; PyYAML calls it."""
        style = "|" if "\n" in data else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style)

    def ignore_aliases(self, data: object) -> bool:
        """Return True; PyYAML calls it."""
        return True


_BlockDumper.add_representer(str, _BlockDumper.represent_str)


def as_yaml(document: dict[str, Any]) -> str:
    return yaml.dump(document, Dumper=_BlockDumper, sort_keys=False)


def default_image(gpus: int) -> str:
    """Return the name that docker/Dockerfile's comment gives to the image with Ray."""
    return "upscaled:cuda-cluster" if gpus else "upscaled:cpu-cluster"


def ray_service(
    arguments: DeploymentArguments, pod: PodOptions, ray_version: str
) -> dict[str, Any]:
    """Return the RayService, one pod for each replica; `ray_version` is the image's."""
    service: dict[str, Any] = yaml.safe_load(_TEMPLATE.read_text())
    # Each replica has a pod of its own: there is no memory to count between them.
    served = serve_config(arguments.model_copy(update={"memory_mib": 0}))
    service["spec"]["serveConfigV2"] = as_yaml(served)
    cluster = service["spec"]["rayClusterConfig"]
    cluster["rayVersion"] = ray_version
    (replicas,) = cluster["workerGroupSpecs"]
    replicas |= dict.fromkeys(("replicas", "minReplicas", "maxReplicas"), arguments.replicas)
    replicas["rayStartParams"] |= {"num-cpus": f"{math.ceil(pod.cpus)}", "num-gpus": f"{pod.gpus}"}
    variables = [{"name": name, "value": value} for name, value in NODE_ENVIRONMENT.items()]
    for group in (cluster["headGroupSpec"], replicas):
        (container,) = group["template"]["spec"]["containers"]
        container |= {"image": pod.image, "env": variables}
    container["resources"] = _reserve(pod)
    return service


def _reserve(pod: PodOptions) -> dict[str, dict[str, str]]:
    """Return the resources of a replica's container."""
    gpus = {"nvidia.com/gpu": f"{pod.gpus}"} if pod.gpus else {}
    limits = {"memory": f"{pod.memory_mib}Mi", **gpus}
    return {"requests": {"cpu": f"{pod.cpus:g}", **limits}, "limits": limits}
