import socket

import pytest

from upscaled.process.listener import CannotListen, open_listener


def test_a_free_port_is_listened_on() -> None:
    with open_listener("127.0.0.1", 0) as listener:
        socket.create_connection(listener.getsockname(), 10).close()


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("nohost.invalid", "the host name is unknown"),
        ("*", "the host name is unknown"),
        ("192.0.2.1", "Cannot assign requested"),
    ],
)
def test_the_reason_is_given_where_an_address_cannot_be_listened_on(host: str, reason: str) -> None:
    with pytest.raises(CannotListen, match=reason):
        open_listener(host, 0)


def test_a_port_of_another_program_is_refused() -> None:
    with open_listener("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(CannotListen, match="Address already in use"):
            open_listener("127.0.0.1", port)
