"""The service's refusals reach the model in its own words, and the key reaches no one else."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

pytest.importorskip("mcp", reason="the SDK of the extra `mcp` is not installed")

from mcp.server.mcpserver.exceptions import ToolError

from tests.listening import free_port
from tests.service.api.pictures import picture, size_of
from tests.service.api.receiver import receive, status
from tests.service.api.serving import MakeService, Service
from upscaled.config import load_settings
from upscaled.mcp.root import Picture
from upscaled.mcp.service_client import ServiceClient, find_service_url, open_http

PHOTO = Picture(Path("photo.png"), picture())
TOO_SMALL = Picture(Path("small.png"), picture(10, 10))


@asynccontextmanager
async def connect(url: str, key: str) -> AsyncIterator[ServiceClient]:
    async with open_http(key) as http:
        yield ServiceClient(http, url)


@pytest.fixture
def service(make_service: MakeService) -> Service:
    return make_service(rate_burst=1, rate_per_s=0.01)


async def test_a_picture_is_returned_with_its_type_and_model(service: Service) -> None:
    async with connect(service.url, service.key) as client:
        image = await client.upscale(PHOTO, 2, {"X-Upscale-Format": "webp"})
    assert size_of(image.data) == (160, 128)
    assert (image.media_type, image.ending, image.model) == ("image/webp", ".webp", "resize")


async def test_a_refusal_is_in_the_service_s_words(service: Service) -> None:
    async with connect(service.url, "wrong") as client:
        with pytest.raises(ToolError, match=r"\(invalid_auth_token\)$"):
            await client.list_models()
    async with connect(service.url, service.key) as client:
        with pytest.raises(ToolError, match=r"\(\w+\)$"):
            await client.upscale(TOO_SMALL, 2, {})


async def test_a_refusal_has_the_seconds_until_a_retry(service: Service) -> None:
    async with connect(service.url, service.key) as client:
        await client.upscale(PHOTO, 2, {})
        with pytest.raises(ToolError, match=r"\(rate_limit_exceeded\); try again after \d+ s"):
            await client.upscale(PHOTO, 2, {})


async def test_a_service_that_does_not_answer_is_named() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    async with connect(url, "key") as client:
        with pytest.raises(ToolError, match=f"^{url} does not answer: "):
            await client.list_models()


async def test_a_name_that_no_request_can_hold_is_refused() -> None:
    async with connect("http://127.0.0.1:1", "") as client:
        with pytest.raises(ToolError, match="a request cannot carry"):
            await client.upscale(PHOTO, 2, {"X-Upscale-Model": "\u00e9"})
        with pytest.raises(ToolError, match="a request cannot carry"):
            await client.upscale(Picture(Path("\udcff.png"), PHOTO.data), 2, {})


async def test_the_answer_of_a_proxy_is_its_status() -> None:
    with receive(status(502)) as proxy:
        async with connect(f"http://127.0.0.1:{proxy.port}", "key") as client:
            with pytest.raises(ToolError, match=r"^the service answered 502$"):
                await client.list_models()


async def test_a_redirect_is_not_followed() -> None:
    with receive(status(200)) as other, receive(status(307, f"Location: {other.url}")) as first:
        async with connect(f"http://127.0.0.1:{first.port}", "key") as client:
            with pytest.raises(ToolError, match=r"^the service answered 307$"):
                await client.list_models()
        assert first.calls[0].headers["x-api-key"] == "key"
        assert other.calls == []


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "ALL_PROXY"])
async def test_a_proxy_for_the_internet_is_passed_by(
    service: Service, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, f"http://127.0.0.1:{free_port()}")
    async with connect(service.url, service.key) as client:
        assert "models" in await client.list_models()


async def test_a_result_is_fetched_from_where_the_service_is(make_service: MakeService) -> None:
    service = make_service(public_base_url="https://upscale.example.com")
    async with connect(service.url, service.key) as client:
        result_url = await client.upscale_to_url(PHOTO, 4, {})
        assert result_url.startswith("https://upscale.example.com/")
        assert size_of((await client.fetch_result(result_url)).data) == (320, 256)


async def test_without_a_key_none_is_sent() -> None:
    with receive(status(503)) as receiver:
        async with connect(f"http://127.0.0.1:{receiver.port}", "") as client:
            with pytest.raises(ToolError):
                await client.list_models()
        assert "x-api-key" not in receiver.calls[0].headers


def test_the_service_is_on_this_machine_unless_it_is_set() -> None:
    assert find_service_url(load_settings({}, port=8123)) == "http://127.0.0.1:8123"
    elsewhere = load_settings({}, mcp_service_url="https://upscale.example.com/")
    assert find_service_url(elsewhere) == "https://upscale.example.com"
