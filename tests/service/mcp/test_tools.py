"""The tools, called by the SDK's own client, against a real service."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mcp", reason="the SDK of the extra `mcp` is not installed")

import anyio
from mcp import Client

from tests.service.api.executors import HangingExecutor, IdleExecutor
from tests.service.api.pictures import picture, size_of
from tests.service.api.serving import MakeService, Service
from tests.service.api.waiting import wait_until
from upscaled.mcp.root import RootFolder
from upscaled.mcp.server import build_server
from upscaled.mcp.service_client import ServiceClient, open_http
from upscaled.pool.executor import UpscaleRequest
from upscaled.upscale.result import Result

TOOLS = {"upscale_file", "upscale_url", "start_job", "get_job", "list_models", "price"}


class Refused(Exception):
    """A tool answered with an error; the text is what the model reads."""


@pytest.fixture
def service(make_service: MakeService) -> Service:
    return make_service(
        IdleExecutor(), metering=True, credits=5, source_private_cidrs="127.0.0.1/32"
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A picture photo.png, and an empty folder `out`."""
    folder = tmp_path / "pictures"
    (folder / "out").mkdir(parents=True)
    (folder / "photo.png").write_bytes(picture())
    return folder


@asynccontextmanager
async def connect(service: Service, folder: Path | None) -> AsyncIterator[Client]:
    root = RootFolder(folder, 1_000_000) if folder else None
    async with (
        open_http(service.key) as http,
        Client(build_server(ServiceClient(http, service.url), root)) as client,
    ):
        yield client


async def call(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    """The structured answer of a tool."""
    answer = await client.call_tool(tool, arguments)
    if answer.is_error:
        raise Refused(answer.content[0].text)
    assert answer.structured_content is not None
    content: dict[str, Any] = answer.structured_content
    return content


async def test_each_tool_and_argument_is_described(service: Service) -> None:
    async with connect(service, None) as client:
        tools = (await client.list_tools()).tools
    assert {tool.name for tool in tools} == TOOLS
    for tool in tools:
        assert tool.description
        for name, argument in tool.input_schema["properties"].items():
            assert "description" in argument, (tool.name, name)


async def test_only_tools_that_change_nothing_are_marked_read_only(service: Service) -> None:
    async with connect(service, None) as client:
        tools = (await client.list_tools()).tools
    reading = {tool.name for tool in tools if tool.annotations and tool.annotations.read_only_hint}
    assert reading == {"list_models", "price"}


async def test_a_file_s_result_is_written_beside_it(service: Service, folder: Path) -> None:
    async with connect(service, folder) as client:
        result = await call(client, "upscale_file", path="photo.png", scale=2)
    assert result["path"] == str(folder / "photo-x2.jpg")
    assert (result["media_type"], result["model"]) == ("image/jpeg", "resize")
    written = (folder / "photo-x2.jpg").read_bytes()
    assert size_of(written) == (160, 128)
    assert result["size_bytes"] == len(written)
    assert service.balance() == 4


async def test_a_result_is_written_to_a_folder_in_the_chosen_form(
    service: Service, folder: Path
) -> None:
    choices = {"folder": "out", "format": "webp", "max_side": 100, "model": "upscaled-x4"}
    async with connect(service, folder) as client:
        result = await call(client, "upscale_file", path="photo.png", **choices)
    assert result["path"] == str(folder / "out" / "photo-x4.webp")
    assert result["model"] == "upscaled-x4"
    assert size_of((folder / "out" / "photo-x4.webp").read_bytes()) == (100, 80)


@pytest.mark.parametrize("arguments", [{"path": "../x.png"}, {"path": "photo.png", "folder": ".."}])
async def test_what_is_outside_the_folder_is_refused_before_anything_is_charged(
    service: Service, folder: Path, arguments: dict[str, str]
) -> None:
    (folder.parent / "x.png").write_bytes(picture())
    async with connect(service, folder) as client:
        with pytest.raises(Refused, match="not below"):
            await call(client, "upscale_file", **arguments)
    assert service.balance() == 5


async def test_without_a_folder_no_tool_touches_files(service: Service) -> None:
    url = f"{service.url}/assets/sample.jpg"
    async with connect(service, None) as client:
        for tool, arguments in (
            ("upscale_file", {"path": "/etc/passwd"}),
            ("upscale_url", {"url": url, "folder": "/tmp"}),
            ("start_job", {"path": "/etc/passwd"}),
            ("price", {"path": "/etc/passwd"}),
        ):
            with pytest.raises(Refused, match="started without --root"):
                await call(client, tool, **arguments)
    assert service.balance() == 5


async def test_a_url_is_answered_with_one(service: Service) -> None:
    async with connect(service, None) as client:
        result = await call(client, "upscale_url", url=f"{service.url}/assets/sample.jpg")
    path = result["result_url"].removeprefix(service.url)
    assert size_of(service.get(path).content) == (1280, 960)
    assert result["path"] is None


class TilesExecutor(IdleExecutor):
    """Does four tiles, each when the test has seen the one before it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = threading.Semaphore(1)

    async def upscale(self, source: bytes, request: UpscaleRequest) -> Result:
        assert request.on_tile is not None
        for done in range(1, 5):
            assert await asyncio.to_thread(self.seen.acquire, timeout=60)
            request.on_tile(done, 4)
        assert await asyncio.to_thread(self.seen.acquire, timeout=60)
        return await super().upscale(source, request)


@pytest.mark.parametrize("tool", ["upscale_file", "upscale_url"])
async def test_the_tiles_that_are_done_are_notified(
    make_service: MakeService, folder: Path, tool: str
) -> None:
    executor = TilesExecutor()
    service = make_service(executor, source_private_cidrs="127.0.0.1/32")
    notified: list[tuple[float, float | None, str | None]] = []

    async def note(done: float, total: float | None, message: str | None) -> None:
        notified.append((done, total, message))
        executor.seen.release()

    url = f"{service.url}/assets/sample.jpg"
    source = {"path": "photo.png"} if tool == "upscale_file" else {"url": url}
    async with connect(service, folder) as client:
        answer = await client.call_tool(tool, source, progress_callback=note)
    assert not answer.is_error, answer
    assert notified == [(done, 4, f"{done} of 4 tiles") for done in range(1, 5)]


async def test_a_call_that_its_client_cancels_ends_the_work_and_is_not_charged(
    make_service: MakeService, folder: Path
) -> None:
    executor = HangingExecutor()
    service = make_service(executor, metering=True, credits=1)
    async with connect(service, folder) as client:
        async with anyio.create_task_group() as group:
            group.start_soon(client.call_tool, "upscale_file", {"path": "photo.png"})
            assert await asyncio.to_thread(executor.has_begun.wait, 60)
            assert service.balance() == 0
            group.cancel_scope.cancel()
        assert await asyncio.to_thread(executor.is_cancelled.wait, 60)
        await asyncio.to_thread(wait_until, lambda: service.balance() == 1)
        assert (await call(client, "list_models"))["models"], "it still answers"
    assert sorted(each.name for each in folder.iterdir()) == ["out", "photo.png"]


async def test_the_result_of_a_url_is_written_to_the_given_path(
    service: Service, folder: Path
) -> None:
    url = f"{service.url}/assets/sample.jpg"
    async with connect(service, folder) as client:
        result = await call(client, "upscale_url", url=url, scale=2, folder="out")
    assert result["path"] == str(folder / "out" / "upscaled-x2.jpg")
    assert size_of((folder / "out" / "upscaled-x2.jpg").read_bytes()) == (640, 480)


async def test_a_job_is_followed_to_its_end_and_its_result_written(
    service: Service, folder: Path
) -> None:
    async with connect(service, folder) as client:
        job = await call(client, "start_job", path="photo.png", scale=2)
        assert job["status"] in ("queued", "running")
        ended = await call(client, "get_job", job_id=job["id"], wait_s=50, folder="out")
    assert ended["status"] == "succeeded"
    assert ended["path"] == str(folder / "out" / f"{job['id']}-x2.jpg")
    assert size_of(Path(ended["path"]).read_bytes()) == (160, 128)
    assert service.balance() == 4


async def test_a_job_that_there_is_not_is_refused(service: Service) -> None:
    async with connect(service, None) as client:
        with pytest.raises(Refused, match=r"\(not_found\)"):
            await call(client, "get_job", job_id="6f5ab457-6f35-466d-b309-7a95d5b95a70")
        with pytest.raises(Refused, match="job_id"):
            await call(client, "get_job", job_id="../credits")


async def test_looking_up_a_price_is_not_charged(service: Service, folder: Path) -> None:
    async with connect(service, folder) as client:
        price = await call(client, "price", path="photo.png", scale=4)
    assert (price["credits"], price["width"], price["height"]) == (1, 320, 256)
    assert service.balance() == 5


async def test_models_are_the_service_s(service: Service) -> None:
    async with connect(service, None) as client:
        models = await call(client, "list_models")
    assert models == service.get("/v1/models", headers=service.headers).json()


@pytest.mark.parametrize("arguments", [{}, {"path": "photo.png", "url": "http://a.example/"}])
async def test_a_job_is_of_a_file_or_of_a_url(
    service: Service, folder: Path, arguments: dict[str, str]
) -> None:
    async with connect(service, folder) as client:
        for tool in ("start_job", "price"):
            with pytest.raises(Refused, match="either a path or a url"):
                await call(client, tool, **arguments)


@pytest.mark.parametrize(
    "arguments", [{"scale": 3}, {"max_side": -1}, {"max_side": 6001}, {"format": "gif"}]
)
async def test_an_argument_beyond_its_limits_is_named(
    service: Service, folder: Path, arguments: dict[str, Any]
) -> None:
    async with connect(service, folder) as client:
        with pytest.raises(Refused, match=next(iter(arguments))):
            await call(client, "upscale_file", path="photo.png", **arguments)
