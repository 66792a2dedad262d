"""Requests that are hardly HTTP, bodies that are nearly right: always an answer of the contract.

Each test sends over a socket of its own, because no client library sends such bytes.
"""

import random
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from tests.conformance.answer_checks import check_refused
from tests.conformance.pictures import PICTURES
from tests.conformance.raw_http import Conversation, Reply, Target, receive
from tests.conformance.requesting import body_of
from tests.conformance.table import BOUNDARY, STATUSES, Refused, Request, form

pytestmark = pytest.mark.ours
FORM_TYPE = f"multipart/form-data; boundary={BOUNDARY}"
NEVER = ("internal_error", "rate_limit_exceeded", "insufficient_api_credits", "invalid_auth_token")


@pytest.fixture
def connection(target: Target) -> Iterator[socket.socket]:
    parts = urlsplit(target.base_url)
    if parts.scheme != "http":
        pytest.skip("plain HTTP only")
    with socket.create_connection((parts.hostname or "", parts.port or 80), 20) as connection:
        yield connection


def head(target: Target, *lines: str, start: str = "POST /v1/upscale HTTP/1.1") -> bytes:
    named = [start, f"Host: {target.host}", f"X-API-KEY: {target.api_key}", *lines, "", ""]
    return "\r\n".join(named).encode("latin-1")


def form_body() -> bytes:
    return body_of(form(), None) or b""


def check_contract(reply: Reply) -> None:
    """Any answer that the contract knows for a request with a good key, and nothing else."""
    if reply.status == 200:
        assert list(reply.json()) == ["result_url"], reply
        return
    body = reply.json()
    assert body["error_code"] in STATUSES, reply
    assert body["error_code"] not in NEVER, reply
    check_refused(reply, Refused(body["error_code"]))


NO_HTTP = {
    "garbage": b"\x00\x01\x02\x03\xff\xfe\r\n\r\n",
    "words": b"hello there\r\n\r\n",
    "a TLS greeting": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 64 + b"\r\n\r\n",
    "an unknown method": b"FLY /v1/upscale HTTP/1.1\r\nHost: x\r\n\r\n",
    "an unknown version": b"POST /v1/upscale HTTP/7.3\r\nHost: x\r\n\r\n",
    "a header without a colon": b"GET /healthz HTTP/1.1\r\nHost: x\r\nnonsense\r\n\r\n",
    "a header with a NUL": b"GET /healthz HTTP/1.1\r\nHost: x\r\nA: \x00\r\n\r\n",
    "a length of letters": b"POST /v1/upscale HTTP/1.1\r\nHost: x\r\nContent-Length: ten\r\n\r\n",
    "a negative length": b"POST /v1/upscale HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    "a method of odd characters": b"F(O / HTTP/1.1\r\nHost: x\r\n\r\n",
    "a method alone": b"GET\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    "chunks in HTTP/1.0": b"GET /healthz HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
    "CONNECT": b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com\r\n\r\n",
    "no Host": b"GET /healthz HTTP/1.1\r\n\r\n",
    "two Hosts": b"GET /healthz HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    "HTTP/0.9": b"GET /healthz\r\n",
    "lines that end in LF": b"GET /healthz HTTP/1.1\nHost: x\n\n",
    "a folded header": b"GET /healthz HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n",
    "white space before a colon": b"GET /healthz HTTP/1.1\r\nHost : x\r\n\r\n",
    "gzip, chunked": b"POST /v1/upscale HTTP/1.1\r\nHost: x\r\n"
    b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "a length beside chunks": b"POST /v1/upscale HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "an endless trailer": b"POST /v1/upscale HTTP/1.1\r\nHost: x\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\nA: " + b"a" * 1_000_000,
    "a head of a megabyte": b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 1_000_000 + b"\r\n\r\n",
}


@pytest.mark.parametrize("what", NO_HTTP)
def test_malformed_http_is_answered_with_an_error_of_the_contract(
    what: str, connection: socket.socket
) -> None:
    try:
        connection.sendall(NO_HTTP[what])
        reply = receive(connection)
    except ConnectionError:
        pytest.fail("the connection was dropped without an answer")
    body = reply.json()
    assert set(body) == {"error", "error_code"}, reply
    assert reply.status == STATUSES[body["error_code"]], reply
    assert 400 <= reply.status < 500, reply
    assert reply.header("content-type") == "application/json", reply


def test_http_1_0_is_answered(target: Target, connection: socket.socket) -> None:
    body = form_body()
    lines = (f"Content-Type: {FORM_TYPE}", f"Content-Length: {len(body)}")
    connection.sendall(head(target, *lines, start="POST /v1/upscale HTTP/1.0") + body)
    check_contract(receive(connection))


@pytest.mark.parametrize(
    "refused", [form("garbage"), form("photo", "3"), form("gif")], ids=["image", "scale", "format"]
)
def test_a_connection_is_kept_open_after_a_refusal(
    refused: Request, target: Target, connection: socket.socket
) -> None:
    bodies = (body_of(refused, None), form_body())
    statuses = []
    for body in bodies:
        lines = (f"Content-Type: {FORM_TYPE}", f"Content-Length: {len(body or b'')}")
        connection.sendall(head(target, *lines) + (body or b""))
        statuses.append(receive(connection).status)
    assert statuses == [400, 200]


@pytest.mark.parametrize("half_closes", [False, True])
def test_two_requests_sent_at_once_are_answered_in_turn(
    half_closes: bool, target: Target, connection: socket.socket
) -> None:
    """Pipelining: the second waits in the socket while the first is worked on."""
    lines = (f"Content-Type: {FORM_TYPE}", f"Content-Length: {len(form_body())}")
    upscale = head(target, *lines) + form_body()
    connection.sendall(upscale + head(target, start="GET /v1/credits HTTP/1.1"))
    if half_closes:
        connection.shutdown(socket.SHUT_WR)
    conversation = Conversation(connection)
    first, second = receive(conversation), receive(conversation)
    assert (list(first.json()), second.status) == (["result_url"], 200)


BAD_BODIES = {
    "a chunk size of letters": (["Transfer-Encoding: chunked"], b"xyz\r\nabc\r\n0\r\n\r\n"),
    "a chunk without its end": (["Transfer-Encoding: chunked"], b"5\r\nabcdefgh\r\n0\r\n\r\n"),
    "a body that ends early": (["Content-Length: 5000"], b"--" + BOUNDARY.encode()),
    "a chunked body that ends early": (["Transfer-Encoding: chunked"], b"500\r\n--"),
}


@pytest.mark.parametrize("what", BAD_BODIES)
def test_a_truncated_body_is_invalid_request_body(
    what: str, target: Target, connection: socket.socket
) -> None:
    """The client ends its sending but still listens: it may be answered, or hung up on."""
    lines, body = BAD_BODIES[what]
    connection.sendall(head(target, f"Content-Type: {FORM_TYPE}", *lines) + body)
    connection.shutdown(socket.SHUT_WR)
    try:
        reply = receive(connection)
    except ConnectionError:
        return
    check_refused(reply, Refused("invalid_request_body"))


def mutated(body: bytes, chance: random.Random) -> bytes:
    """The body with one to four bytes changed, lost, doubled or moved; its head is hit most."""
    data = bytearray(body)
    for _ in range(chance.randint(1, 4)):
        reach = chance.choice((120, 260, len(data)))
        start = chance.randrange(min(reach, len(data)))
        end = start + chance.choice((1, 2, 8, 60))
        kind = chance.randrange(4)
        if kind == 0:
            data[start] = chance.randrange(256)
        elif kind == 1:
            del data[start:end]
        elif kind == 2:
            data[start:start] = data[start:end]
        else:
            data[start:end] = bytes(reversed(data[start:end]))
    return bytes(data)


@pytest.mark.parametrize("seed", range(8))
def test_a_damaged_form_is_answered_in_the_contracts_words(seed: int, target: Target) -> None:
    chance = random.Random(seed)
    headers = [("X-API-KEY", target.api_key), ("Content-Type", FORM_TYPE)]
    for _ in range(15):
        body = mutated(form_body(), chance)
        check_contract(target.send("POST", "/v1/upscale", headers, body))


@pytest.mark.parametrize("seed", range(8))
def test_a_damaged_json_body_is_answered_in_the_contracts_words(seed: int, target: Target) -> None:
    chance = random.Random(seed)
    headers = [("X-API-KEY", target.api_key), ("Content-Type", "application/json")]
    for _ in range(25):
        body = mutated(b'{"image_url": "http://unknown.invalid/photo.jpg", "scale": 2}', chance)
        check_contract(target.send("POST", "/v1/upscale", headers, body))


@pytest.mark.parametrize("name", ["photo", "rgba_png", "webp", "palette_trns_png"])
def test_a_damaged_image_is_answered_in_the_contracts_words(name: str, target: Target) -> None:
    chance = random.Random(name)
    headers = [("X-API-KEY", target.api_key), ("Content-Type", FORM_TYPE)]
    whole = PICTURES[name].data
    template = form_body()
    for _ in range(12):
        body = template.replace(PICTURES["photo"].data, mutated(whole, chance))
        check_contract(target.send("POST", "/v1/upscale", headers, body))
