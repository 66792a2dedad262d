"""compose.yaml says what test_image.py proves: the hardening, the volume and the profiles."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

DOCKER_DIR = Path(__file__).resolve().parents[2] / "docker"


@pytest.fixture
def compose() -> dict[str, Any]:
    compose: dict[str, Any] = yaml.safe_load((DOCKER_DIR / "compose.yaml").read_text())
    return compose


@pytest.fixture
def services(compose: dict[str, Any]) -> dict[str, Any]:
    """Ours, without those that watch them."""
    return {
        name: service
        for name, service in compose["services"].items()
        if service["profiles"] != ["metrics"]
    }


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


def test_only_the_gpu_service_asks_for_a_gpu(services: dict[str, Any]) -> None:
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
        mount.split(":") for service in compose["services"].values() for mount in service["volumes"]
    ]
    assert len(mounts) == 7
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
    for name in ("upscaled-cpu", "upscaled-gpu"):
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
