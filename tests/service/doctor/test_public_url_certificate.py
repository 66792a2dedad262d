"""The doctor's check of the certificate with which the service serves https."""

from pathlib import Path

import pytest

from tests.certificates import make_certificate
from tests.service.doctor.answering import OURS, answering
from tests.service.doctor.conftest import MakeSettings
from upscaled.doctor.finding import Status
from upscaled.doctor.port import check_port
from upscaled.doctor.public_url import WARN_DAYS, check_certificate


def test_a_service_without_a_certificate_has_no_line(make_settings: MakeSettings) -> None:
    assert check_certificate(make_settings()) == []


@pytest.mark.parametrize(
    ("days", "status", "found"),
    [
        (WARN_DAYS + 2, Status.OK, "ends in 16 days"),
        (WARN_DAYS - 1, Status.WARNING, "ends in 13 days"),
        (-1, Status.FAILURE, "certificate has expired"),
    ],
)
def test_an_expired_certificate_is_a_failure_and_one_that_ends_soon_a_warning(
    make_settings: MakeSettings, tmp_path: Path, days: int, status: Status, found: str
) -> None:
    made = make_certificate(tmp_path, days=days)
    settings = make_settings(tls_cert=str(made.certificate), tls_key=str(made.key))
    (finding,) = check_certificate(settings)
    assert (finding.check, finding.status) == ("certificate", status)
    assert found in finding.found
    assert str(made.certificate) in finding.found


def test_files_that_cannot_be_used_are_a_failure(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    made = make_certificate(tmp_path)
    settings = make_settings(tls_cert=str(made.certificate), tls_key=str(tmp_path / "no"))
    (finding,) = check_certificate(settings)
    assert finding.status is Status.FAILURE
    assert finding.found == f"UPSCALED_TLS_KEY={tmp_path / 'no'}: No such file or directory"
    (finding,) = check_certificate(make_settings(tls_key=str(made.key)))
    assert "without UPSCALED_TLS_CERT" in finding.found


def test_a_service_that_serves_https_is_probed_by_https(tmp_path: Path) -> None:
    made = make_certificate(tmp_path, "DNS:upscale.example.com")
    with answering(OURS, made.server_context()) as port:
        (finding,) = check_port("127.0.0.1", port, is_expected=True, is_tls=True)
    assert finding.status is Status.OK
    with answering(OURS) as port:
        (finding,) = check_port("127.0.0.1", port, is_expected=True, is_tls=True)
    assert finding.status is Status.FAILURE
    assert "no https" in finding.found
