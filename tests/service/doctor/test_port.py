import os
import socket
import threading

import pytest

from tests.listening import free_port
from tests.service.doctor.answering import ANOTHER, NOT_READY, OURS, answering
from upscaled.doctor.finding import Finding, Status
from upscaled.doctor.port import check_port


def checked(port: int, *, host: str = "127.0.0.1", is_expected: bool = False) -> Finding:
    (finding,) = check_port(host, port, is_expected=is_expected)
    return finding


def test_a_service_of_ours_that_answers_is_reported_as_ready() -> None:
    with answering(OURS) as port:
        finding = checked(port, host="0.0.0.0", is_expected=True)
    assert finding.status is Status.OK
    assert "is ready" in finding.found


@pytest.mark.parametrize(
    ("is_expected", "status", "text"),
    [(True, Status.FAILURE, "closed"), (False, Status.WARNING, "free to serve on")],
)
def test_a_closed_port_is_a_failure_where_the_service_should_run(
    is_expected: bool, status: Status, text: str
) -> None:
    closed_port = free_port()
    finding = checked(closed_port, is_expected=is_expected)
    assert finding.status is status
    assert text in finding.found
    assert f"upscaled serve --host 127.0.0.1 --port {closed_port}" in finding.advice


@pytest.mark.parametrize(
    ("answers", "said"), [(ANOTHER, "another program"), (NOT_READY, "is not ready")]
)
def test_another_program_on_the_port_is_a_failure(
    answers: dict[str, tuple[int, bytes]], said: str
) -> None:
    with answering(answers) as port:
        finding = checked(port)
    assert finding.status is Status.FAILURE
    assert said in finding.found


def test_a_server_without_http_is_a_failure() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"220 mail.example.com ESMTP\r\n")

        thread = threading.Thread(target=greet)
        thread.start()
        finding = checked(listener.getsockname()[1])
        thread.join()
    assert finding.status is Status.FAILURE


def test_a_listener_that_never_answers_is_a_failure_in_seconds() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        finding = checked(listener.getsockname()[1])
    assert finding.status is Status.FAILURE
    assert os.strerror(98) in finding.found


def test_an_address_of_another_machine_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    # A test network's address: nothing is sent to it, for connecting is cut off here.
    def refuse(*_: object, **__: object) -> socket.socket:
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "create_connection", refuse)
    finding = checked(8000, host="192.0.2.1")
    assert finding.status is Status.FAILURE
    assert "Cannot assign requested address" in finding.found
