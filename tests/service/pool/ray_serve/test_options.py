"""The deployment's options stand in one place, for Serve, the manifest and the check."""

import tomllib

import pytest
from pydantic import ValidationError

from tests.running import REPOSITORY_DIR
from tests.service.pool.ray_serve.clusters import has_ray
from upscaled.pool.ray_serve.options import (
    BUILDER,
    DeploymentArguments,
    deployment_options,
    required_ray,
    serve_config,
)


def test_the_config_file_has_the_options_of_the_deployment() -> None:
    arguments = DeploymentArguments(replicas=3, num_cpus=4, num_gpus=0.5, memory_mib=1024)
    config = serve_config(arguments)
    assert config["proxy_location"] == "Disabled"
    (application,) = config["applications"]
    assert application["deployments"] == [deployment_options(arguments)]
    assert application["deployments"][0]["num_replicas"] == 3
    reserved = application["deployments"][0]["ray_actor_options"]
    assert reserved == {"num_cpus": 4, "num_gpus": 0.5, "memory": 1024**3}


def test_no_memory_is_reserved_unless_some_is_named() -> None:
    assert "memory" not in deployment_options(DeploymentArguments())["ray_actor_options"]


@pytest.mark.parametrize("wrong", [{"replicas": 0}, {"num_cpus": -1}, {"num_gpu": 1}])
def test_arguments_out_of_range_and_unknown_ones_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        DeploymentArguments.model_validate(wrong)


def test_the_version_of_ray_is_the_one_that_the_project_requires() -> None:
    project = tomllib.loads((REPOSITORY_DIR / "pyproject.toml").read_text())["project"]
    (requirement,) = project["optional-dependencies"]["cluster"]
    assert requirement == f"ray[serve]=={required_ray()}.*"


@pytest.mark.skipif(not has_ray, reason="ray is not installed (requirements-cluster.lock)")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_ray_serve_accepts_the_config_file_and_finds_the_builder() -> None:
    from ray.serve.schema import DeploymentSchema, ServeDeploySchema

    from upscaled.pool.ray_serve import deployment

    assert f"{deployment.__name__}:{deployment.build.__name__}" == BUILDER
    config = serve_config(DeploymentArguments(replicas=2, num_gpus=1))
    read = ServeDeploySchema.model_validate(config)
    assert read.proxy_location == "Disabled"
    # Serve ignores what it does not know, so a misspelt option would have no effect.
    assert set(config["applications"][0]["deployments"][0]) <= set(DeploymentSchema.model_fields)
    assert set(config["applications"][0]) <= set(type(read.applications[0]).model_fields)
    assert set(config) <= set(ServeDeploySchema.model_fields)
