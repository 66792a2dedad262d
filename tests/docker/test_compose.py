"""compose.yaml says what test_image.py proves: the hardening, the volume and the profiles."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from tests.service.pool.ray_serve.clusters import has_ray
from upscaled.config import load_settings
from upscaled.pool.ray_serve.options import NODE_ENVIRONMENT
from upscaled.state.database_url import parse_database_url

DOCKER_DIR = Path(__file__).resolve().parents[2] / "docker"


@pytest.fixture
def compose() -> dict[str, Any]:
    compose: dict[str, Any] = yaml.safe_load((DOCKER_DIR / "compose.yaml").read_text())
    return compose


@pytest.fixture
def services(compose: dict[str, Any]) -> dict[str, Any]:
    """Those of one machine, without those that watch them."""
    return {
        name: service
        for name, service in compose["services"].items()
        if service["profiles"] not in (["metrics"], ["cluster"])
    }


@pytest.fixture
def cluster(compose: dict[str, Any]) -> dict[str, Any]:
    services = compose["services"].items()
    return {name: service for name, service in services if service["profiles"] == ["cluster"]}


@pytest.fixture
def watchers(compose: dict[str, Any]) -> dict[str, Any]:
    return {
        name: service
        for name, service in compose["services"].items()
        if service["profiles"] == ["metrics"]
    }


def test_there_is_one_service_per_accelerator(services: dict[str, Any]) -> None:
    assert {name: service["profiles"] for name, service in services.items()} == {
        "upscaled-cpu": ["cpu"],
        "upscaled-gpu": ["gpu"],
    }


def test_every_service_is_hardened(services: dict[str, Any]) -> None:
    for service in services.values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["tmpfs"] == ["/tmp:size=1g,mode=1777"]
        assert service["volumes"] == ["data:/data"]


def test_no_port_is_open_to_other_computers(services: dict[str, Any]) -> None:
    for service in services.values():
        assert [port.split(":")[0] for port in service["ports"]] == ["127.0.0.1"]


def test_the_files_that_compose_builds_from_exist(services: dict[str, Any]) -> None:
    for service in services.values():
        context = (DOCKER_DIR / service["build"]["context"]).resolve()
        assert (context / service["build"]["dockerfile"]).samefile(DOCKER_DIR / "Dockerfile")


def test_only_the_gpu_service_reserves_a_gpu(services: dict[str, Any]) -> None:
    (device,) = services["upscaled-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    assert services["upscaled-gpu"]["build"]["args"] == {"ACCELERATOR": "cuda"}
    assert "deploy" not in services["upscaled-cpu"]


def test_monitoring_is_pinned_hardened_and_closed_to_other_computers(
    watchers: dict[str, Any],
) -> None:
    assert sorted(watchers) == ["grafana", "prometheus"]
    for service in watchers.values():
        assert re.search(r":v?\d+\.\d+\.\d+@sha256:[0-9a-f]{64}$", service["image"])
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert [port.split(":")[0] for port in service["ports"]] == ["127.0.0.1"]


def test_every_mount_is_a_volume_or_a_folder_that_is_there(compose: dict[str, Any]) -> None:
    mounts = [
        mount.split(":")
        for service in compose["services"].values()
        for mount in service.get("volumes", [])
    ]
    assert len(mounts) == 8
    for source, _, *mode in mounts:
        if source.startswith("./"):
            assert (DOCKER_DIR / source).is_dir()
            assert mode == ["ro"]
        else:
            assert source in compose["volumes"]


def test_prometheus_scrapes_whichever_service_runs(compose: dict[str, Any]) -> None:
    config = yaml.safe_load((DOCKER_DIR / "prometheus/prometheus.yaml").read_text())
    (job,) = config["scrape_configs"]
    (target,) = job["static_configs"][0]["targets"]
    host, port = target.split(":")
    for name in ("upscaled-cpu", "upscaled-gpu", "cluster-front"):
        service = compose["services"][name]
        assert host in service["networks"]["default"]["aliases"]
        assert service["ports"] == [f"127.0.0.1:${{UPSCALED_PORT:-8000}}:{port}"]


def test_the_base_image_is_pinned_by_its_digest() -> None:
    dockerfile = (DOCKER_DIR / "Dockerfile").read_text()
    (base,) = re.findall(r"^ARG BASE_IMAGE=(.*)$", dockerfile, re.MULTILINE)
    assert re.fullmatch(r"python:3\.11\.\d+-slim@sha256:[0-9a-f]{64}", base)
    assert set(re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)) == {"${BASE_IMAGE}"}


def _start_grafana(service: dict[str, Any], password: str) -> subprocess.CompletedProcess[str]:
    """Run what its container runs, with `echo` in place of Grafana's own start script."""
    *shell, script = (part.replace("$$", "$") for part in service["entrypoint"])
    assert script.endswith("exec /run.sh")
    variable = service["environment"]["GF_SECURITY_ADMIN_PASSWORD"]
    assert variable == "${GRAFANA_ADMIN_PASSWORD:-}"
    return subprocess.run(
        [*shell, script.replace("/run.sh", "echo started")],
        env={"PATH": os.environ["PATH"], "GF_SECURITY_ADMIN_PASSWORD": password},
        capture_output=True,
        text=True,
    )


def test_grafana_does_not_start_without_a_password(watchers: dict[str, Any]) -> None:
    refused = _start_grafana(watchers["grafana"], "")
    assert refused.returncode != 0
    assert refused.stdout == ""
    assert "set GRAFANA_ADMIN_PASSWORD" in refused.stderr
    assert _start_grafana(watchers["grafana"], "a $trange one").stdout == "started\n"


def test_a_profile_that_is_off_requires_no_variable() -> None:
    """`${NAME:?}` stops every profile: Compose reads the whole file before it chooses services."""
    text = (DOCKER_DIR / "compose.yaml").read_text()
    code = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    assert [line for line in code if re.search(r"(?<!\$)\$\{\w+:?\?", line)] == []


def test_grafana_makes_no_outgoing_calls(watchers: dict[str, Any]) -> None:
    said = watchers["grafana"]["environment"]
    calls = {
        "GF_ANALYTICS_REPORTING_ENABLED": "false",
        "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
        "GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES": "false",
        "GF_NEWS_NEWS_FEED_ENABLED": "false",
        "GF_PLUGINS_PREINSTALL_DISABLED": "true",
        "GF_SECURITY_DISABLE_GRAVATAR": "true",
    }
    assert {name: said[name] for name in calls} == calls


def test_the_cluster_is_hardened_and_closed_to_other_computers(cluster: dict[str, Any]) -> None:
    assert sorted(cluster) == [
        "cluster-bucket",
        "cluster-database",
        "cluster-front",
        "cluster-head",
        "cluster-node",
    ]
    for service in cluster.values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert [port.split(":")[0] for port in service.get("ports", [])] in ([], ["127.0.0.1"])
        if "build" not in service:
            assert re.search(r":\d+\.\d+(\.\d+)?@sha256:[0-9a-f]{64}$", service["image"])


def test_nodes_and_front_end_have_the_variables_of_every_node_and_an_init_that_reaps(
    cluster: dict[str, Any],
) -> None:
    ours = [service for service in cluster.values() if "build" in service]
    assert len(ours) == 3
    for service in ours:
        assert NODE_ENVIRONMENT.items() <= service["environment"].items()
        assert service["init"] is True
        assert service["build"]["args"] == {"EXTRAS": "cluster"}
    # Without the mode, which has a default elsewhere, podman-compose starts one.
    assert cluster["cluster-node"]["deploy"] == {"mode": "replicated", "replicas": 2}


def test_a_cluster_node_is_checked_at_rays_health_endpoint_and_starts_after_the_head(
    cluster: dict[str, Any],
) -> None:
    """The image's own check calls a front end, which no node runs."""
    for name in ("cluster-head", "cluster-node"):
        assert "52365/api/local_raylet_healthz" in cluster[name]["healthcheck"]["test"][-1]
    healthy = {"condition": "service_healthy"}
    assert cluster["cluster-node"]["depends_on"] == {"cluster-head": healthy}
    assert cluster["cluster-front"]["depends_on"]["cluster-node"] == healthy


def test_the_front_end_of_the_cluster_has_settings_that_the_program_accepts(
    cluster: dict[str, Any],
) -> None:
    environment = cluster["cluster-front"]["environment"]
    settings = {name: text for name, text in environment.items() if name.startswith("UPSCALED_")}
    settings["UPSCALED_PUBLIC_BASE_URL"] = ""  # Compose's own syntax
    if not has_ray:
        del settings["UPSCALED_CLUSTER"]
    read = load_settings(settings)
    assert read.results_url == "s3://upscaled/public/result"
    assert read.s3_endpoint == "http://cluster-bucket:5000"
    url = parse_database_url(read.database_url, Path(), "p@ss/w:rd%$ #?")
    assert (url.username, url.password) == ("upscaled", "p@ss/w:rd%$ #?")
    assert (url.host, url.database) == ("cluster-database", "upscaled")


def test_front_end_and_database_of_the_cluster_are_given_one_password(
    cluster: dict[str, Any],
) -> None:
    front, database = (
        cluster[name]["environment"] for name in ("cluster-front", "cluster-database")
    )
    assert front["UPSCALED_DATABASE_PASSWORD"] == database["POSTGRES_PASSWORD"]


def test_the_health_check_of_the_s3_stand_in_makes_the_bucket(
    cluster: dict[str, Any], s3_server: str
) -> None:
    _, python, _, code = cluster["cluster-bucket"]["healthcheck"]["test"]
    assert python == "python3"
    here = code.replace("127.0.0.1:5000", s3_server.removeprefix("http://"))
    for _ in range(2):  # it runs again and again
        subprocess.run([sys.executable, "-c", here], check=True, capture_output=True)
    assert requests.head(f"{s3_server}/upscaled", timeout=60).status_code == 200
    requests.delete(f"{s3_server}/upscaled", timeout=60).raise_for_status()


@pytest.mark.slow
def test_compose_reads_the_profile() -> None:
    command = [sys.executable, "-m", "podman_compose", "--file", str(DOCKER_DIR / "compose.yaml")]
    done = subprocess.run(
        [*command, "--profile", "cluster", "config"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "cluster-front" in done.stdout
