"""The tools of the MCP server; their docstrings are what language models read.

A client that sends a progress token with its call is notified of how many tiles are done. The
service streams that by the id of the request (`GET /v1/progress/{id}`).
"""

import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from uuid import UUID, uuid4

import anyio
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations
from pydantic import BaseModel, Field

from upscaled.mcp.root import Picture, RootFolder
from upscaled.mcp.service_client import Image, ServiceClient, Source

MAX_WAIT_S: Final = 50
"""Longest that `get_job` waits: clients give a call up after a minute."""
_ENDED: Final = frozenset({"succeeded", "failed", "cancelled"})

Scale = Annotated[Literal[2, 4], Field(description="how much wider and higher the result is")]
FilePath = Annotated[str, Field(description="file, absolute or relative to the server's folder")]
Url = Annotated[str, Field(description="http or https URL of a picture; the service fetches it")]
Folder = Annotated[
    str, Field(description="existing folder for the result, below the server's folder")
]
Model = Annotated[str, Field(description="name of a model of list_models; else the best one")]
Denoise = Annotated[
    float | None,
    Field(
        ge=0,
        le=1,
        description="how much noise is removed: 1 most, 0 none; only with a model that has "
        "`denoise` in list_models",
    ),
]
Format = Annotated[
    Literal["", "jpeg", "png", "webp", "avif", "lossless"],
    Field(description="format of the result; by default JPEG or, with transparency, PNG"),
]
MaxSide = Annotated[
    int, Field(ge=0, le=6000, description="longest side of the result in pixels; 0: by the scale")
]


class Result(BaseModel):
    """An upscaled picture: the file that was written, or the URL where it is for a while."""

    path: str | None = None
    result_url: str | None = None
    media_type: str | None = None
    size_bytes: int | None = None
    model: str | None = Field(default=None, description="what made it")


class Tools:
    """What a language model may do with one service and one folder of this machine."""

    def __init__(self, service: ServiceClient, root: RootFolder | None) -> None:
        """Bind the tools; without a root folder, those that touch files refuse."""
        self._service = service
        self._root = root

    def add_to(self, server: MCPServer) -> None:
        """Offer the tools on a server."""
        reading = ToolAnnotations(read_only_hint=True)
        adding = ToolAnnotations(destructive_hint=False, idempotent_hint=False)
        for tool in (self.upscale_file, self.upscale_url, self.start_job, self.get_job):
            server.add_tool(tool, annotations=adding)
        for looking in (self.list_models, self.price):
            server.add_tool(looking, annotations=reading)

    async def upscale_file(
        self,
        path: FilePath,
        scale: Scale = 4,
        folder: Folder = "",
        model: Model = "",
        denoise: Denoise = None,
        format: Format = "",
        max_side: MaxSide = 0,
        *,
        context: Context[Any, Any],
    ) -> Result:
        """Upscale an image file and write the result beside it, or into `folder`.

        The result is named after the file, such as photo-x4.jpg; no file is ever replaced. This
        may take a minute or more: for pictures over a megapixel use start_job and get_job. Costs
        one credit where the service meters.
        """
        root = self._require_root()
        picture = await anyio.to_thread.run_sync(root.read, path)
        target = root.find_folder(folder) if folder else picture.path.parent
        choices = _choices(model, denoise, format, max_side)
        async with reporting(self._service, context) as request_id:
            image = await self._service.upscale(picture, scale, choices, request_id)
        return await self._save(image, target, f"{picture.path.stem}-x{scale}")

    async def upscale_url(
        self,
        url: Url,
        scale: Scale = 4,
        folder: Folder = "",
        model: Model = "",
        denoise: Denoise = None,
        format: Format = "",
        max_side: MaxSide = 0,
        *,
        context: Context[Any, Any],
    ) -> Result:
        """Upscale the picture at a URL; answers the URL of the result, or writes it to `folder`.

        The result's URL needs no key and expires, by default after an hour. Costs one credit where
        the service meters.
        """
        choices = _choices(model, denoise, format, max_side)
        target = self._require_root().find_folder(folder) if folder else None
        async with reporting(self._service, context) as request_id:
            if target is None:
                result_url = await self._service.upscale_to_url(url, scale, choices, request_id)
                return Result(result_url=result_url)
            image = await self._service.upscale(url, scale, choices, request_id)
        return await self._save(image, target, f"upscaled-x{scale}")

    async def start_job(
        self,
        path: FilePath = "",
        url: Url = "",
        scale: Scale = 4,
        model: Model = "",
        denoise: Denoise = None,
        format: Format = "",
        max_side: MaxSide = 0,
    ) -> dict[str, Any]:
        """Start to upscale a file (`path`) or the picture at a `url`, and answer the job at once.

        Follow it by get_job with its `id`. It costs one credit, when it succeeds, where the service
        meters.
        """
        source = await self._read(path, url)
        return await self._service.start_job(
            source, scale, _choices(model, denoise, format, max_side)
        )

    async def get_job(
        self,
        job_id: Annotated[UUID, Field(description="`id` that start_job returned")],
        folder: Folder = "",
        wait_s: Annotated[
            int, Field(ge=0, le=MAX_WAIT_S, description="seconds to wait for its end")
        ] = 0,
    ) -> dict[str, Any]:
        """Look up a job: status, progress, and once it succeeded `result_url`.

        With `folder`, the result of a job that succeeded is written there too; `path` says where.
        """
        target = self._require_root().find_folder(folder) if folder else None
        deadline = time.monotonic() + wait_s
        job = await self._service.show_job(job_id)
        while job["status"] not in _ENDED and time.monotonic() < deadline:
            await anyio.sleep(1)
            job = await self._service.show_job(job_id)
        if target is not None and job["status"] == "succeeded":
            image = await self._service.fetch_result(str(job["result_url"]))
            job["path"] = (await self._save(image, target, f"{job_id}-x{job['scale']}")).path
        return job

    async def list_models(self) -> dict[str, Any]:
        """List the models of the service: scales, speed, licence, and what `auto` chooses."""
        return await self._service.list_models()

    async def price(
        self,
        path: FilePath = "",
        url: Url = "",
        scale: Scale = 4,
        model: Model = "",
        denoise: Denoise = None,
        format: Format = "",
        max_side: MaxSide = 0,
    ) -> dict[str, Any]:
        """Ask what upscaling a file or URL would cost: credits, seconds, size, format and model.

        Nothing is upscaled, stored or charged.
        """
        source = await self._read(path, url)
        return await self._service.price(source, scale, _choices(model, denoise, format, max_side))

    async def _read(self, path: str, url: str) -> Source:
        if bool(path) == bool(url):
            raise ToolError("name either a path or a url")
        if url:
            return url
        picture: Picture = await anyio.to_thread.run_sync(self._require_root().read, path)
        return picture

    async def _save(self, image: Image, folder: Path, stem: str) -> Result:
        write = self._require_root().write
        path = await anyio.to_thread.run_sync(write, folder, stem, image.ending, image.data)
        return Result(
            path=str(path),
            media_type=image.media_type,
            size_bytes=len(image.data),
            model=image.model or None,
        )

    def _require_root(self) -> RootFolder:
        if self._root is None:
            raise ToolError("this server has no folder for files: it was started without --root")
        return self._root


def _choices(model: str, denoise: float | None, format_name: str, max_side: int) -> dict[str, str]:
    """Return the headers of what was chosen."""
    chosen = {
        "X-Upscale-Model": model,
        "X-Upscale-Denoise": "" if denoise is None else f"{denoise:.9f}",
        "X-Upscale-Format": format_name,
        "X-Upscale-Max-Side": str(max_side or ""),
    }
    return {name: value for name, value in chosen.items() if value}


@asynccontextmanager
async def reporting(service: ServiceClient, context: Context[Any, Any]) -> AsyncIterator[str]:
    """Report the progress of one upscale, if there is any; yields the id to send it with."""
    request_id, refusal = str(uuid4()), None
    async with anyio.create_task_group() as group:
        group.start_soon(_report, service, context, request_id)
        try:
            yield request_id
        except ToolError as error:  # a group would wrap it
            refusal = error
        group.cancel_scope.cancel()
    if refusal is not None:
        raise refusal


async def _report(service: ServiceClient, context: Context[Any, Any], request_id: str) -> None:
    most = 0  # progress never goes back, but an image that is begun anew does
    async with aclosing(service.watch(request_id)) as steps:
        async for done, total in steps:
            if done > most:
                most = done
                await context.report_progress(done, total, f"{done} of {total} tiles")
