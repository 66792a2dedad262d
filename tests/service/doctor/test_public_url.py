import socket
from pathlib import Path

import pytest

from tests.certificates import make_certificate
from tests.listening import free_port
from tests.service.doctor.answering import ANOTHER, NOT_READY, OURS, answering
from tests.service.doctor.conftest import MakeSettings
from upscaled.config import Settings
from upscaled.doctor.finding import Finding, Status
from upscaled.doctor.public_url import WARN_DAYS, check_public_url


def checked(settings: Settings, *, may_connect: bool = False) -> list[Finding]:
    return check_public_url(settings, may_connect=may_connect)


def worst(findings: list[Finding]) -> Finding:
    return max(findings, key=lambda finding: list(Status).index(finding.status))


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        pytest.fail("something connected")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize(
    ("url", "status", "said"),
    [
        ("", Status.OK, "the address that the client called"),
        ("https://upscale.example.com", Status.OK, "not called"),
        ("http://upscale.example.com", Status.WARNING, "is not https"),
    ],
)
def test_nothing_connects_without_the_option(
    url: str, status: Status, said: str, make_settings: MakeSettings
) -> None:
    (finding,) = checked(make_settings(public_base_url=url))
    assert finding.status is status
    assert said in finding.found


def test_a_url_of_this_machine_is_followed_and_warned_of(make_settings: MakeSettings) -> None:
    with answering(OURS) as port:
        warned, followed = checked(make_settings(public_base_url=f"http://127.0.0.1:{port}"))
    assert warned.status is Status.WARNING
    assert "leads every other computer to itself" in warned.found
    assert followed.status is Status.OK


def test_a_path_in_the_public_url_precedes_the_services_paths(make_settings: MakeSettings) -> None:
    below = {f"/pictures{path}": answer for path, answer in OURS.items()}
    with answering(below) as port:
        url = f"http://127.0.0.1:{port}/pictures"
        assert checked(make_settings(public_base_url=url))[-1].status is Status.OK


@pytest.mark.parametrize(
    ("answers", "said"), [(ANOTHER, "does not lead to this service"), (NOT_READY, "is not ready")]
)
def test_a_url_that_leads_elsewhere_is_a_failure(
    answers: dict[str, tuple[int, bytes]], said: str, make_settings: MakeSettings
) -> None:
    with answering(answers) as port:
        finding = checked(make_settings(public_base_url=f"http://localhost:{port}"))[-1]
    assert finding.status is Status.FAILURE
    assert said in finding.found


def test_a_url_where_no_server_listens_is_a_failure(make_settings: MakeSettings) -> None:
    finding = checked(make_settings(public_base_url=f"https://127.0.0.1:{free_port()}"))[-1]
    assert finding.status is Status.FAILURE
    assert "nothing listens there" in finding.found


@pytest.mark.parametrize(
    ("names", "days", "status", "said"),
    [
        ("IP:127.0.0.1", WARN_DAYS + 2, Status.OK, "trusted here, ends in"),
        ("IP:127.0.0.1", WARN_DAYS - 1, Status.WARNING, "ends in 13 days"),
        ("IP:127.0.0.1", -1, Status.FAILURE, "certificate has expired"),
        ("DNS:other.example.com", 90, Status.FAILURE, "not valid for '127.0.0.1'"),
    ],
)
def test_a_certificate_is_verified_as_clients_do(
    names: str,
    days: int,
    status: Status,
    said: str,
    make_settings: MakeSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = make_certificate(tmp_path, names, days)
    monkeypatch.setenv("SSL_CERT_FILE", str(made.certificate))
    with answering(OURS, made.server_context()) as port:
        findings = checked(make_settings(public_base_url=f"https://127.0.0.1:{port}"))
    assert findings[-1].check == "certificate"
    assert findings[-1].status is status
    assert said in findings[-1].found


@pytest.mark.parametrize("has_tls", [True, False])
def test_an_unknown_authority_and_a_server_without_tls_are_failures(
    make_settings: MakeSettings, tmp_path: Path, has_tls: bool
) -> None:
    tls = make_certificate(tmp_path).server_context() if has_tls else None
    with answering(OURS, tls) as port:
        finding = worst(checked(make_settings(public_base_url=f"https://localhost:{port}")))
    assert (finding.check, finding.status) == ("certificate", Status.FAILURE)
    assert not has_tls or "self-signed certificate" in finding.found
    assert "SSL_CERT_FILE" in finding.advice


def test_an_unknown_name_is_a_failure_with_the_option_to_connect(
    make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    settings = make_settings(public_base_url="https://upscale.example.com")
    (finding,) = checked(settings, may_connect=True)
    assert finding.status is Status.FAILURE
    assert "the host name is unknown here" in finding.found
