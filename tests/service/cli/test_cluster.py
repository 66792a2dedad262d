"""`upscaled cluster` without a cluster: what it prints, and how it ends."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
import yaml
from typer.testing import CliRunner

from tests.databases import make_tables
from tests.listening import free_port
from tests.running import clean_environment, run_upscaled
from tests.service.cli.invoking import invoke
from tests.service.pool.ray_serve.clusters import has_ray
from upscaled.cli import build_app
from upscaled.config import load_settings
from upscaled.pool.ray_serve.node_properties import ClusterUnreachable
from upscaled.pool.ray_serve.options import DeploymentArguments, serve_config
from upscaled.state import open_state
from upscaled.state.schema import AUTO_CHOICE
from upscaled.upscale.model_choice import AutoChoice, Rung

needs_ray = pytest.mark.skipif(
    not has_ray, reason="ray is not installed (requirements-cluster.lock)"
)


def manifest(*options: str) -> Any:
    done = CliRunner().invoke(build_app(["cluster"]), ["cluster", "manifest", *options])
    assert done.exit_code == 0
    return yaml.safe_load(done.stdout)


@needs_ray
def test_the_manifest_is_the_config_file_of_what_was_named() -> None:
    named = ("--replicas", "3", "--cpus", "4", "--gpus", "0.5", "--memory", "1.5")
    arguments = DeploymentArguments(replicas=3, num_cpus=4, num_gpus=0.5, memory_mib=1536)
    assert manifest(*named) == serve_config(arguments)


@needs_ray
def test_the_manifest_for_kubernetes_is_a_ray_service_with_that_config_file() -> None:
    options = ("--kubernetes", "--replicas", "3", "--cpus", "4", "--gpus", "1", "--memory", "16")
    service = manifest(*options)
    assert service["kind"] == "RayService"
    arguments = DeploymentArguments(replicas=3, num_cpus=4, num_gpus=1)
    assert yaml.safe_load(service["spec"]["serveConfigV2"]) == serve_config(arguments)


@needs_ray
@pytest.mark.parametrize(
    "options",
    [
        ("--replicas", "0"),
        ("--kubernetes",),
        ("--kubernetes", "--gpus", "0.5"),
        ("--memory", "inf"),
        ("--cpus", "inf"),
        ("--gpus", "nan"),
    ],
)
def test_what_cannot_be_deployed_is_a_wrong_call(options: tuple[str, ...]) -> None:
    done = CliRunner().invoke(build_app(["cluster"]), ["cluster", "manifest", *options])
    assert (done.exit_code, done.stdout) == (2, "")


@pytest.mark.slow
@needs_ray
def test_without_a_cluster_the_check_fails_with_one_finding() -> None:
    environment = clean_environment(RAY_ADDRESS=f"127.0.0.1:{free_port()}", PYTHONWARNINGS="ignore")
    done = run_upscaled(environment, "cluster", "check", "--json", is_checked=False)
    document = json.loads(done.stdout)
    assert (done.returncode, document["status"]) == (1, "failure")
    (finding,) = document["findings"]
    assert (finding["check"], finding["status"]) == ("cluster", "failure")
    assert finding["found"].startswith("cannot be reached: nothing answers at 127.0.0.1")
    assert "RAY_ADDRESS" in finding["advice"]


@needs_ray
def test_what_ray_prints_does_not_get_into_the_document(monkeypatch: pytest.MonkeyPatch) -> None:
    def inspect() -> None:
        print("(raylet) The node with node id: 77 has been marked dead")
        raise ClusterUnreachable("no head")

    without_ray = SimpleNamespace(inspect_cluster=inspect)  # whose import alone warns
    monkeypatch.setitem(sys.modules, "upscaled.pool.ray_serve.inspection", without_ray)
    finished = CliRunner().invoke(build_app(), ["cluster", "check", "--json"])
    assert "marked dead" in finished.stderr
    assert "no head" in json.loads(finished.stdout)["findings"][0]["found"]


@pytest.mark.parametrize("command", ["check", "manifest"])
def test_without_ray_the_way_to_install_it_is_named(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.metadata.distributions", lambda **_: iter(()))
    done = CliRunner().invoke(build_app(["cluster"]), ["cluster", command])
    assert done.exit_code == 2
    assert "requirements-cluster.lock" in done.output


def test_thresholds_are_printed_and_deleted_also_those_that_cannot_be_read(tmp_path: Path) -> None:
    make_tables(tmp_path / "data")
    env = {"UPSCALED_DATA_DIR": str(tmp_path / "data")}
    choice = AutoChoice(plans={4: "large 0123"}, ladders={4: (Rung(model="large", most_px=7),)})
    with open_state(load_settings(env)) as state:
        state.auto_choice.settle(choice)
    shown = ["x4: large: up to 7 input pixels", "    models and settings: large 0123"]
    assert invoke("cluster", "thresholds", env=env).stdout.splitlines() == shown
    with open_state(load_settings(env)) as state, state.database.write() as connection:
        connection.execute(sa.update(AUTO_CHOICE).values(plans="{"))
    refused = invoke("cluster", "thresholds", env=env)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "cannot be read" in refused.stderr
    named, deleted = invoke("cluster", "thresholds", "--reset", env=env).stdout.splitlines()
    assert "cannot be read" in named
    assert deleted.startswith("deleted the thresholds: ")
    assert invoke("cluster", "thresholds", env=env).stdout.startswith("no thresholds are stored: ")
