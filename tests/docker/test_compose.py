"""compose.yaml says what test_image.py proves: the hardening, the volume and the profiles."""

from pathlib import Path
from typing import Any

import pytest
import yaml

DOCKER_DIR = Path(__file__).resolve().parents[2] / "docker"


@pytest.fixture
def services() -> dict[str, Any]:
    services: dict[str, Any] = yaml.safe_load((DOCKER_DIR / "compose.yaml").read_text())["services"]
    return services


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


def test_what_compose_builds_is_there(services: dict[str, Any]) -> None:
    for service in services.values():
        context = (DOCKER_DIR / service["build"]["context"]).resolve()
        assert (context / service["build"]["dockerfile"]).samefile(DOCKER_DIR / "Dockerfile")


def test_only_the_gpu_service_asks_for_a_gpu(services: dict[str, Any]) -> None:
    (device,) = services["upscaled-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    assert services["upscaled-gpu"]["build"]["args"] == {"ACCELERATOR": "cuda"}
    assert "deploy" not in services["upscaled-cpu"]
