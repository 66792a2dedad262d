"""Describe a deployment to KubeRay: the RayService with the pods of its head and its replicas."""

import math
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import yaml

from upscaled.pool.ray_serve.options import NODE_ENVIRONMENT, DeploymentArguments, serve_config

NAME: Final = "upscaled"
TOKEN_SECRET: Final = "upscaled-ray"  # noqa: S105  (a secret's name)
"""Secret with the cluster's token under `auth_token`, the key that KubeRay reads."""

GROUP: Final = "replicas"
LABELS: Final = MappingProxyType({"app.kubernetes.io/part-of": NAME})
"""Labels of every pod, for network policies; KubeRay has a name of its own for its pods."""
BUCKET_SECRET: Final = "upscaled-bucket"  # noqa: S105  (a secret's name)
"""Secret with the bucket's credentials as AWS names them: a replica stores results itself."""
SETTINGS: Final = "upscaled-settings"
"""ConfigMap with the `UPSCALED_*` settings that replicas and front ends share."""

_OBJECT_STORE_BYTES: Final = 2_000_000_000
"""Images and results that cross at once: 125 MB for each slot of a replica, and one more."""

_HEAD_STORE_BYTES: Final = 200_000_000  # no image crosses the head
_HEAD_MEMORY: Final = "4Gi"
_STATE_SIZE: Final = "1Gi"
_USER: Final = 10001  # of docker/Dockerfile

_HEALTH_OF_HEAD: Final = "http://127.0.0.1:8265/api/gcs_healthz"
_HEALTH_OF_NODE: Final = "http://127.0.0.1:52365/api/local_raylet_healthz"


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
    """Writes texts of several lines as they are."""

    def represent_str(self, data: str) -> yaml.ScalarNode:
        """Return the node of a text; PyYAML calls it."""
        style = "|" if "\n" in data else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style)


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
    cluster = {
        "rayVersion": ray_version,
        "authOptions": {"mode": "token", "secretName": TOKEN_SECRET},
        # Without a store, the deployment is lost with its head.
        "gcsFaultToleranceOptions": {"backend": "rocksdb", "storage": {"size": _STATE_SIZE}},
        "headGroupSpec": _head_group(pod.image),
        "workerGroupSpecs": [_replica_group(arguments.replicas, pod)],
    }
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {"name": NAME, "labels": dict(LABELS)},
        "spec": {
            # A second cluster beside the first would need all GPUs twice.
            "upgradeStrategy": {"type": "None"},
            "excludeHeadPodFromServeSvc": True,
            # Each replica has a pod of its own: there is no memory to count between them.
            "serveConfigV2": as_yaml(serve_config(arguments.model_copy(update={"memory_mib": 0}))),
            "rayClusterConfig": cluster,
        },
    }


def _head_group(image: str) -> dict[str, Any]:
    resources = {
        "requests": {"cpu": "1", "memory": _HEAD_MEMORY},
        "limits": {"memory": _HEAD_MEMORY},
    }
    container = _container("ray-head", image, resources, _HEALTH_OF_HEAD)
    # The operator deploys through the dashboard, which requires the token.
    start = {"num-cpus": "0", "num-gpus": "0", "object-store-memory": str(_HEAD_STORE_BYTES)}
    return {"rayStartParams": start, "template": _template(container)}


def _replica_group(replicas: int, pod: PodOptions) -> dict[str, Any]:
    requests = {"cpu": f"{pod.cpus:g}", "memory": f"{pod.memory_mib}Mi"}
    limits = {"memory": f"{pod.memory_mib}Mi"}
    if pod.gpus:
        requests["nvidia.com/gpu"] = limits["nvidia.com/gpu"] = str(pod.gpus)
    resources = {"requests": requests, "limits": limits}
    container = _container("ray-worker", pod.image, resources, _HEALTH_OF_NODE)
    container["envFrom"] = [
        {"configMapRef": {"name": SETTINGS}},
        # Without it, results go to the front ends, which store them.
        {"secretRef": {"name": BUCKET_SECRET, "optional": True}},
    ]
    start = {
        "num-cpus": str(math.ceil(pod.cpus)),
        "num-gpus": str(pod.gpus),
        "object-store-memory": str(_OBJECT_STORE_BYTES),
    }
    return {
        "groupName": GROUP,
        "replicas": replicas,
        "minReplicas": replicas,
        "maxReplicas": replicas,
        "rayStartParams": start,
        "template": _template(container),
    }


def _container(name: str, image: str, resources: dict[str, Any], health_url: str) -> dict[str, Any]:
    return {
        "name": name,
        "image": image,
        "env": [{"name": key, "value": value} for key, value in NODE_ENVIRONMENT.items()],
        "resources": resources,
        # KubeRay's own probes need wget, and of replicas Serve's proxy, which does not run.
        "readinessProbe": _probe(health_url, failures=3),
        "livenessProbe": _probe(health_url, failures=24),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "data", "mountPath": "/data"},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108  (of a container)
        ],
    }


def _probe(url: str, *, failures: int) -> dict[str, Any]:
    script = f"from urllib.request import urlopen; urlopen('{url}', timeout=4)"
    return {
        "exec": {"command": ["python3", "-c", script]},
        "initialDelaySeconds": 10,
        "periodSeconds": 5,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def _template(container: dict[str, Any]) -> dict[str, Any]:
    return {
        "metadata": {"labels": dict(LABELS)},
        "spec": {
            "automountServiceAccountToken": False,
            # The pod's first process then reaps dead ones: Ray counts a zombie as alive, and the
            # replicas of a dead raylet would keep the GPU.
            "shareProcessNamespace": True,
            "terminationGracePeriodSeconds": 70,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": _USER,
                "runAsGroup": _USER,
                "fsGroup": _USER,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
            "volumes": [{"name": "data", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}],
        },
    }
