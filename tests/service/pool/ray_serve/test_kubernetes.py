"""The RayService has what Ray's dangerous defaults on Kubernetes need."""

from typing import Any

import pytest

from upscaled.pool.ray_serve.kubernetes import (
    PodOptions,
    as_yaml,
    default_image,
    ray_service,
)
from upscaled.pool.ray_serve.options import NODE_ENVIRONMENT, DeploymentArguments

ARGUMENTS = DeploymentArguments(replicas=3, num_cpus=3.5, num_gpus=1, memory_mib=16384)


@pytest.fixture
def cluster() -> dict[str, Any]:
    pod = PodOptions(image="registry/upscaled:1", cpus=3.5, memory_mib=16384, gpus=1)
    service = ray_service(ARGUMENTS, pod, "2.60.0")
    cluster: dict[str, Any] = service["spec"]["rayClusterConfig"]
    return cluster


@pytest.fixture
def groups(cluster: dict[str, Any]) -> list[dict[str, Any]]:
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def test_every_pod_reaps_dead_processes_and_has_the_variables(groups: list[dict[str, Any]]) -> None:
    for group in groups:
        spec = group["template"]["spec"]
        assert spec["shareProcessNamespace"] is True
        (container,) = spec["containers"]
        names = {each["name"]: each["value"] for each in container["env"]}
        assert names == dict(NODE_ENVIRONMENT)


def test_no_pod_is_left_to_the_operators_probes(groups: list[dict[str, Any]]) -> None:
    for group in groups:
        (container,) = group["template"]["spec"]["containers"]
        for probe in ("readinessProbe", "livenessProbe"):
            assert container[probe]["exec"]["command"][0] == "python3"


def test_the_head_keeps_its_state_and_all_require_the_token(cluster: dict[str, Any]) -> None:
    assert cluster["gcsFaultToleranceOptions"]["backend"] == "rocksdb"
    assert cluster["authOptions"]["mode"] == "token"
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_a_replica_has_a_pod_with_what_it_reserves(cluster: dict[str, Any]) -> None:
    (group,) = cluster["workerGroupSpecs"]
    assert (group["replicas"], group["rayStartParams"]["num-cpus"]) == (3, "4")
    (container,) = group["template"]["spec"]["containers"]
    assert container["resources"] == {
        "requests": {"cpu": "3.5", "memory": "16384Mi", "nvidia.com/gpu": "1"},
        "limits": {"memory": "16384Mi", "nvidia.com/gpu": "1"},
    }


def test_a_replica_without_a_gpu_requests_none() -> None:
    pod = PodOptions(image="", cpus=4, memory_mib=1, gpus=0)
    assert "nvidia" not in as_yaml(ray_service(ARGUMENTS, pod, "2.60.0"))
    assert (default_image(0), default_image(1)) == ("upscaled:cpu-cluster", "upscaled:cuda-cluster")
