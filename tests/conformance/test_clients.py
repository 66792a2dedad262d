"""Requests of client libraries as recorded, byte by byte, with every header they add.

The files of `captured/` were recorded from curl 7.88, requests 2.34, httpx 0.28, aiohttp 3.14,
axios 1.21 (with and without form-data), node 20's fetch and OkHttp 4.12 (its parts typed as
Retrofit's converters do); those of .NET follow its documentation. Lines end in CRLF on the wire;
<<HOST>>, <<KEY>>, <<SOURCE>>, <<IMAGE>>, <<IMAGE_LENGTH>> and <<LENGTH>> are filled in.
"""

from pathlib import Path

import pytest

from tests.conformance.answer_checks import check_refused, check_upscaled
from tests.conformance.pictures import PICTURES, Picture
from tests.conformance.raw_http import Target, chunked
from tests.conformance.requesting import Source
from tests.conformance.table import Refused, Upscaled

CAPTURED_DIR = Path(__file__).parent / "captured"
WITHOUT_CONTENT_TYPE = "curl_json_without_content_type"
FORMS = sorted(path.stem for path in CAPTURED_DIR.glob("*_form*.http"))
JSONS = sorted(
    path.stem for path in CAPTURED_DIR.glob("*_json.http") if path.stem != WITHOUT_CONTENT_TYPE
)


def load(name: str, target: Target, image: bytes, source_url: str) -> tuple[bytes, bytes]:
    """The head and the body of a recorded request, filled in."""
    text = (CAPTURED_DIR / f"{name}.http").read_text("utf-8").replace("\n", "\r\n").encode()
    head, _, body = text.partition(b"\r\n\r\n")
    head = head.replace(b" /v1", f" {target.base_path}/v1".encode(), 1)
    body = body.replace(b"<<SOURCE>>", source_url.encode()).replace(b"<<IMAGE>>", image)
    body = body.replace(b"<<IMAGE_LENGTH>>", str(len(image)).encode())
    if b"Transfer-Encoding: chunked" in head:
        body = chunked(body, 777)
    for word, value in (("HOST", target.host), ("KEY", target.api_key), ("LENGTH", len(body))):
        head = head.replace(f"<<{word}>>".encode(), str(value).encode())
    return head + b"\r\n\r\n", body


def picture_for(name: str) -> Picture:
    return PICTURES["over_1_mb" if "expect_100" in name else "photo"]


@pytest.mark.parametrize("name", FORMS)
def test_a_recorded_form_is_accepted(name: str, target: Target) -> None:
    picture = picture_for(name)
    reply = target.send_bytes(*load(name, target, picture.data, ""))
    check_upscaled(reply, Upscaled(), picture, target)


@pytest.mark.parametrize("name", JSONS)
def test_a_recorded_json_body_is_accepted(name: str, target: Target, source: Source) -> None:
    reply = target.send_bytes(*load(name, target, b"", source.url))
    check_upscaled(reply, Upscaled(), source.picture, target)


def test_curl_with_json_but_no_content_type_is_refused(target: Target, source: Source) -> None:
    reply = target.send_bytes(*load(WITHOUT_CONTENT_TYPE, target, b"", source.url))
    check_refused(reply, Refused("unsupported_content_type"))


def test_every_library_of_the_contract_is_here() -> None:
    libraries = {"aiohttp", "axios", "curl", "dotnet", "httpx", "node", "okhttp", "requests"}
    assert {name.split("_")[0] for name in FORMS} == libraries
    assert {name.split("_")[0] for name in JSONS} == libraries
