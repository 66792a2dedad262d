"""The doctor's check of who may send requests."""

import pytest

from tests.service.doctor.conftest import MakeSettings
from upscaled.doctor.environment import check_access
from upscaled.doctor.finding import Status


def test_a_service_that_needs_keys_has_no_line(make_settings: MakeSettings) -> None:
    assert check_access(make_settings(), "0.0.0.0") == []


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_only_loopback_needs_no_keys(make_settings: MakeSettings, host: str) -> None:
    (finding,) = check_access(make_settings(auth="none"), host)
    assert finding.status is Status.OK


@pytest.mark.parametrize(
    ("host", "url", "found"),
    [
        ("0.0.0.0", "", "requests that reach 0.0.0.0 need"),
        ("", "", "requests that reach 0.0.0.0 need"),
        ("192.168.1.5", "", "requests that reach 192.168.1.5 need"),
        ("127.0.0.1", "https://upscale.example.com", "reach upscale.example.com need"),
        ("::", "https://a.example", "reach :: or a.example need"),
    ],
)
def test_a_service_without_keys_that_others_reach_is_a_warning(
    make_settings: MakeSettings, host: str, url: str, found: str
) -> None:
    (finding,) = check_access(make_settings(auth="none", public_base_url=url), host)
    assert finding.status is Status.WARNING
    assert found in finding.found
    assert "UPSCALED_AUTH" in finding.advice


def test_a_port_of_administration_without_administrators_is_a_warning(
    make_settings: MakeSettings,
) -> None:
    (finding,) = check_access(make_settings(admin_port=8001), "127.0.0.1")
    assert finding.status is Status.WARNING
    assert "nothing listens on UPSCALED_ADMIN_PORT=8001" in finding.found
    assert "upscaled admin key NAME" in finding.advice
    keys = f"ops:{'0' * 64}"
    assert check_access(make_settings(admin_port=8001, admin_keys=keys), "127.0.0.1") == []
    assert check_access(make_settings(admin_keys=keys), "127.0.0.1") == []
