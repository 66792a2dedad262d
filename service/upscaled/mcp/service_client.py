"""Call a running upscaled service over HTTP, and turn its refusals into errors that models read."""

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import UUID

import httpx2
from mcp.server.mcpserver.exceptions import ToolError

from upscaled.config import Settings
from upscaled.image.formats.table import ENCODED
from upscaled.mcp.root import Picture

# A large picture by a large model on a small machine, behind others in the queue; a dead service
# shows at once, when the connection is made.
_TIMEOUT: Final = httpx2.Timeout(900, connect=10)
_DATA: Final = "data: "
_ENDINGS: Final = {each.media_type: f".{each.suffix}" for each in ENCODED}

Source = Picture | str
"""What to upscale: a file, or the URL of a picture that the service fetches."""


@dataclass(frozen=True, slots=True)
class Image:
    """A result: its bytes, its media type, and the model that made it ("" where unknown)."""

    data: bytes
    media_type: str
    model: str

    @property
    def ending(self) -> str:
        return _ENDINGS.get(self.media_type, ".img")


class ServiceClient:
    """The requests that the tools make of one service, under one API key.

    They raise `ToolError` where the service refuses or does not answer; `watch` just ends.
    """

    def __init__(self, http: httpx2.AsyncClient, base_url: str) -> None:
        """Use an HTTP client that sends the key; see `open_http`."""
        self._http = http
        self._base_url = base_url

    async def upscale(
        self, source: Source, scale: int, choices: Mapping[str, str], request_id: str = ""
    ) -> Image:
        """Upscale a picture now, and return the result itself, or raise `ToolError`.

        Args:
            source: a file or a URL.
            choices: headers `X-Upscale-*`.
            request_id: by which `watch` follows it, unlike that of any other request; "": none.
        """
        headers = {**choices, "Accept": "image/*", **_name_request(request_id)}
        return _read_image(await self._post(source, scale, headers))

    async def upscale_to_url(
        self, source: Source, scale: int, choices: Mapping[str, str], request_id: str = ""
    ) -> str:
        """Upscale a picture now, and return the URL of the result; see `upscale`."""
        answer = await self._post(source, scale, {**choices, **_name_request(request_id)})
        return str(answer.json()["result_url"])

    async def watch(self, request_id: str) -> AsyncGenerator[tuple[int, int]]:
        """Yield the tiles that are done and all tiles of an upscale, while they are known."""
        url = f"{self._base_url}/v1/progress/{request_id}"
        with suppress(httpx2.TransportError, ValueError, KeyError):
            async with self._http.stream("GET", url) as answer:
                if not answer.is_success:
                    return
                async for line in answer.aiter_lines():
                    if line.startswith(_DATA) and "tiles_total" in line:
                        step = json.loads(line.removeprefix(_DATA))
                        if step["tiles_total"]:
                            yield step["tiles_done"], step["tiles_total"]

    async def start_job(
        self, source: Source, scale: int, choices: Mapping[str, str]
    ) -> dict[str, Any]:
        """Submit a job, and return it as the service describes it; see `upscale`."""
        answer = await self._post(source, scale, {**choices, "Prefer": "respond-async"})
        return dict(answer.json())

    async def price(self, source: Source, scale: int, choices: Mapping[str, str]) -> dict[str, Any]:
        """Fetch price, size, model and time of an upscale that is not made; see `upscale`."""
        answer = await self._post(source, scale, {**choices, "X-Upscale-Dry-Run": "true"})
        return dict(answer.json())

    async def show_job(self, job_id: UUID) -> dict[str, Any]:
        return dict((await self._send("GET", f"/v1/jobs/{job_id}")).json())

    async def list_models(self) -> dict[str, Any]:
        """Return the models of the service, and how `auto` chooses among them."""
        return dict((await self._send("GET", "/v1/models")).json())

    async def fetch_result(self, result_url: str) -> Image:
        """Fetch a result by its URL, but from the host where this client reaches the service."""
        file_name = urlsplit(result_url).path.rpartition("/")[2]
        return _read_image(await self._send("GET", f"/public/result/{file_name}"))

    async def _post(
        self, source: Source, scale: int, headers: Mapping[str, str]
    ) -> httpx2.Response:
        if isinstance(source, str):
            body: dict[str, Any] = {"json": {"image_url": source, "scale": scale}}
        else:
            files = {"image": (source.path.name, source.data)}
            body = {"files": files, "data": {"scale": str(scale)}}
        return await self._send("POST", "/v1/upscale", headers=headers, body=body)

    async def _send(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> httpx2.Response:
        url = self._base_url + path
        try:
            answer = await self._http.request(method, url, headers=headers, **(body or {}))
        except UnicodeEncodeError:
            raise ToolError("a name has characters that a request cannot carry") from None
        except httpx2.TransportError as error:
            reason = str(error) or type(error).__name__
            raise ToolError(f"{self._base_url} does not answer: {reason}") from None
        if not answer.is_success:
            raise ToolError(_describe_refusal(answer))
        return answer


def _name_request(request_id: str) -> dict[str, str]:
    return {"X-Request-Id": request_id} if request_id else {}


def open_http(api_key: str) -> httpx2.AsyncClient:
    """Open a `ServiceClient`'s HTTP client, without redirects: the key is sent nowhere else."""
    headers = {"X-API-KEY": api_key} if api_key else {}
    # trust_env: a proxy for the internet is none for a service on the own network.
    return httpx2.AsyncClient(headers=headers, timeout=_TIMEOUT, trust_env=False)


def find_service_url(settings: Settings) -> str:
    """Return where the service is: as set, or else on this machine."""
    return settings.mcp_service_url or f"http://127.0.0.1:{settings.port}"


def _read_image(answer: httpx2.Response) -> Image:
    media_type = answer.headers.get("Content-Type", "").partition(";")[0]
    return Image(answer.content, media_type, answer.headers.get("X-Upscale-Model", ""))


def _describe_refusal(answer: httpx2.Response) -> str:
    """Return the service's own words, and when to try again where it says so."""
    try:
        body = answer.json()
        text = f"{body['error']} ({body['error_code']})"
    except (ValueError, KeyError, TypeError):  # a proxy's answer
        text = f"the service answered {answer.status_code}"
    wait = answer.headers.get("Retry-After")
    return f"{text}; try again after {wait} s" if wait else text
