"""The result URL: what it looks like, who may fetch it, and how long."""

import time
from urllib.parse import urlsplit

import pytest

from tests.conformance.answer_checks import (
    check_image_reply,
    check_refused,
    check_result_json,
    check_result_path,
    check_upscaled,
    fetch_result,
)
from tests.conformance.own_settings import PUBLIC_BASE_URL, RESULT_TTL_S
from tests.conformance.pictures import PICTURES, doubled
from tests.conformance.raw_http import Target
from tests.conformance.requesting import perform
from tests.conformance.table import Part, Refused, Upscaled, form, json_body

# result_url: {PUBLIC_BASE_URL}/public/result/{uuid4}.jpg or .png: no key, no query, no redirect;
# GET and HEAD with true Content-Type and Content-Length; valid for 3600 s from creation, then 404.
NAMES = ("photo", "rgba_png")


@pytest.fixture(scope="module")
def result_urls(target: Target) -> dict[str, str]:
    return {name: check_result_json(perform(form(name), target)) for name in NAMES}


@pytest.mark.ours
@pytest.mark.parametrize("name", NAMES)
def test_a_result_url_is_a_path_of_a_uuid4(name: str, result_urls: dict[str, str]) -> None:
    check_result_path(result_urls[name])


@pytest.mark.parametrize("name", NAMES)
def test_a_result_is_fetched_without_a_key(
    name: str, result_urls: dict[str, str], target: Target
) -> None:
    check_image_reply(fetch_result(result_urls[name], target), PICTURES[name], 2)


@pytest.mark.parametrize("name", NAMES)
def test_head_has_the_headers_of_get(
    name: str, result_urls: dict[str, str], target: Target
) -> None:
    whole = fetch_result(result_urls[name], target)
    head = fetch_result(result_urls[name], target, "HEAD")
    assert head.body == b""
    for header in ("content-type", "content-length"):
        assert head.header(header) == whole.header(header)


def test_a_result_is_the_same_each_time(result_urls: dict[str, str], target: Target) -> None:
    first, second = (fetch_result(result_urls["photo"], target) for _ in range(2))
    assert first.body == second.body


@pytest.mark.ours
def test_a_result_under_the_other_extension_is_not_found(
    result_urls: dict[str, str], target: Target
) -> None:
    path = urlsplit(result_urls["photo"]).path.replace(".jpg", ".png")
    check_refused(target.send("GET", path), Refused("not_found"))


@pytest.mark.ours
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_a_result_accepts_get_and_head_alone(
    method: str, result_urls: dict[str, str], target: Target
) -> None:
    reply = target.send(method, urlsplit(result_urls["photo"]).path)
    check_refused(reply, Refused("method_not_allowed", allows="GET"))


@pytest.mark.parametrize("name", NAMES)
def test_a_result_url_is_accepted_as_image_url(
    name: str, result_urls: dict[str, str], target: Target
) -> None:
    reply = perform(json_body({"image_url": result_urls[name], "scale": 2}), target)
    check_upscaled(reply, Upscaled(), doubled(PICTURES[name]), target)


@pytest.mark.ours
def test_a_result_as_source_is_read_without_network_or_allowed_address(strict: Target) -> None:
    """Its address is a name that does not resolve, on a server that may fetch from no loopback."""
    result_url = check_result_json(perform(form(), strict))
    assert result_url.startswith(f"{PUBLIC_BASE_URL}/public/result/")
    request = form("", "2", Part("image_url", result_url)).plus(("Accept", "image/*"))
    reply = perform(request, strict)
    check_upscaled(reply, Upscaled(is_binary=True), doubled(PICTURES["photo"]), strict)


@pytest.mark.ours
def test_a_result_is_accepted_as_source_under_another_name_of_the_server(strict: Target) -> None:
    """A proxy may change scheme, host and port; the result stays the same."""
    path = urlsplit(check_result_json(perform(form(), strict))).path
    body = {"image_url": f"http://another-name.example.test:8443{path}", "scale": 2}
    reply = perform(json_body(body).plus(("Accept", "image/*")), strict)
    check_upscaled(reply, Upscaled(is_binary=True), doubled(PICTURES["photo"]), strict)


@pytest.mark.ours
def test_an_expired_result_is_not_found_and_not_accepted_as_source(strict: Target) -> None:
    result_url = check_result_json(perform(form(), strict))
    path = urlsplit(result_url).path
    assert strict.send("GET", path).status == 200
    time.sleep(RESULT_TTL_S + 0.2)
    check_refused(strict.send("GET", path), Refused("not_found"))
    again = perform(json_body({"image_url": result_url, "scale": 2}), strict)
    check_refused(again, Refused("invalid_parameter"))
