"""GET of the pages for people, of `llms.txt` for language models, and of the OpenAPI documents.

All that the pages need is served from here, so they work with the network unplugged. The operators'
pages are the files that the repository shows. The hints and errors of the page at `/` quote the
limits of this server, so that they agree with what it refuses.
"""

import gzip
import html
import json
import re
from collections.abc import Awaitable, Callable, Collection, Mapping
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import PurePath
from string import Template
from typing import Any, Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from upscaled.api.dependencies import find_base_url
from upscaled.api.markdown_pages import render_page
from upscaled.api.openapi import keep_upload_only
from upscaled.config import MIN_INPUT_SIDE_PX, SCALES, Settings
from upscaled.image.formats.table import FORMATS, Format
from upscaled.image.output import MAX_OUTPUT_SIDE_PX

# Nothing from outside, nothing inline.
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS: Final = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
# Media types of the files that pages load, by suffix.
_MEDIA_TYPES: Final = {
    ".css": "text/css",
    ".js": "text/javascript",
    ".jpg": "image/jpeg",
    ".svg": "image/svg+xml",
}
_COMPRESSED: Final = frozenset({"text/html", "text/css", "text/javascript", "image/svg+xml"})

Endpoint = Callable[[Request], Awaitable[Response]]
_MEBIBYTE: Final = 1024 * 1024
_KEY: Final = {"key": "", "key_state": ""}
_NO_KEY: Final = {"key": "none", "key_state": " hidden"}


def build_router(settings: Settings) -> APIRouter:
    static, documentation = files("upscaled.api") / "static", files("upscaled") / "docs"
    endpoints: dict[str, Endpoint] = {
        "/openapi.json": get_openapi,
        "/openapi-upload.json": get_upload_openapi,
        "/llms.txt": _serve_overview(static / "llms.txt", settings.public_base_url),
        "/": serve_file(render_playground(settings).encode(), "text/html"),
        "/docs": serve_file((static / "docs.html").read_bytes(), "text/html"),
        **serve_folder("/assets", static),
    }
    for file in documentation.iterdir():
        if file.is_dir():
            endpoints |= serve_folder(f"/docs/{file.name}", file)
        elif file.name.endswith(".md"):
            endpoints[f"/docs/{file.name.removesuffix('.md')}"] = _serve_markdown(file)
    return route_pages(endpoints)


def route_pages(endpoints: Mapping[str, Endpoint]) -> APIRouter:
    """Return routes for GET and HEAD, by path.

    They are Starlette's: FastAPI would look for parameters in each, which was most of the time of a
    start.
    """
    router = APIRouter()
    for path, endpoint in sorted(endpoints.items()):
        router.add_route(path, endpoint, methods=["GET"], include_in_schema=False)
    return router


async def get_openapi(request: Request) -> Response:
    """Return the OpenAPI document of the service."""
    return JSONResponse(request.app.openapi(), headers=HEADERS)


async def get_upload_openapi(request: Request) -> Response:
    """Return the document without the JSON body, for generators that support one body at most."""
    return JSONResponse(keep_upload_only(request.app.openapi()), headers=HEADERS)


def serve_folder(
    path: str, folder: Traversable, names: Collection[str] | None = None
) -> dict[str, Endpoint]:
    """Return endpoints, by path, of the files in a folder that pages load; of these `names`."""
    return {
        f"{path}/{file.name}": serve_file(file.read_bytes(), media_type)
        for file in folder.iterdir()
        if (names is None or file.name in names)
        and (media_type := _MEDIA_TYPES.get(PurePath(file.name).suffix))
    }


def serve_file(content: bytes, media_type: str) -> Endpoint:
    """Return an endpoint of a file; a text is compressed when a client first accepts that."""
    is_text = media_type in _COMPRESSED
    compressed = cache(lambda: gzip.compress(content, mtime=0))

    async def get_file(request: Request) -> Response:
        headers = {**HEADERS, "Vary": "Accept-Encoding"} if is_text else HEADERS
        if is_text and _accepts_gzip(request.headers.get("Accept-Encoding", "")):
            headers = {**headers, "Content-Encoding": "gzip"}
            return Response(compressed(), media_type=media_type, headers=headers)
        return Response(content, media_type=media_type, headers=headers)

    return get_file


def _accepts_gzip(accept_encoding: str) -> bool:
    """Return whether the header names gzip, and not with a weight of 0 (RFC 9110, 12.5.3)."""
    for coding in accept_encoding.lower().split(","):
        name, _, weight = coding.partition(";")
        if name.strip() == "gzip":
            return not re.fullmatch(r"\s*q=0(\.0*)?\s*", weight)
    return False


def _serve_overview(file: Traversable, public_base_url: str) -> Endpoint:
    """Return an endpoint of `llms.txt` (llmstxt.org), in which every link is absolute.

    A language model is given the text alone, so it cannot resolve a relative link.
    """
    template = Template(file.read_text(encoding="utf-8"))

    async def get_overview(request: Request) -> Response:
        base = find_base_url(request, public_base_url)
        return PlainTextResponse(template.substitute(base=base), headers=HEADERS)

    return get_overview


def _serve_markdown(file: Traversable) -> Endpoint:
    """Return an endpoint that renders the page when it is first requested, and keeps it."""
    render = cache(lambda: render_page(file.read_text(encoding="utf-8")))

    async def get_page(_: Request) -> Response:
        return Response(render(), media_type="text/html", headers=HEADERS)

    return get_page


def render_playground(settings: Settings) -> str:
    """Return the page at `/` as HTML."""
    template = (files("upscaled.api") / "static" / "playground.html").read_text("utf-8")
    return Template(template).substitute(
        limits=html.escape(json.dumps(describe_limits(settings))),
        accept=",".join(
            [
                *(f"image/{each.name.lower()}" for each in _decoded_formats(settings)),
                *_suffixes(settings),
            ]
        ),
        formats=", ".join(each.label for each in _decoded_formats(settings)),
        # Any key is accepted where none is needed, so the page sends one that says so.
        **(_NO_KEY if settings.auth == "none" else _KEY),
        max_file=describe_bytes(settings.max_file_bytes),
        kept=describe_duration(settings.result_ttl_s),
    )


def describe_limits(settings: Settings) -> dict[str, Any]:
    """Return the limits on pictures as the page's scripts read them: sides in pixels.

    Keys: `sides` (the longest side of an input, by scale), `minSide` and `resultSide` (the longest
    of a result), `file` (the largest file, in words), `fileBytes`, `suffixes` (of the names of
    pictures), `keptS` (how long the page keeps results in the browser, as the server does).
    """
    return {
        "sides": {str(scale): settings.max_input_side_px(scale) for scale in SCALES},
        "minSide": MIN_INPUT_SIDE_PX,
        "resultSide": MAX_OUTPUT_SIDE_PX,
        "file": describe_bytes(settings.max_file_bytes),
        "fileBytes": settings.max_file_bytes,
        "suffixes": _suffixes(settings),
        "keptS": settings.result_ttl_s,
    }


def describe_bytes(size_bytes: int) -> str:
    """Return a limit on a file's size in words, never more than it is."""
    if size_bytes < _MEBIBYTE:
        return f"{size_bytes // 1024} KiB"
    tenths = size_bytes * 10 // _MEBIBYTE
    return f"{tenths / 10:g} MiB"


def describe_duration(seconds: int) -> str:
    """Return a time in words, never more than it is."""
    units = {"day": 86_400, "hour": 3600, "minute": 60, "second": 1}
    unit = next(name for name, length in units.items() if seconds >= length)
    count = seconds // units[unit]
    return f"{count} {unit}" if count == 1 else f"{count} {unit}s"


def _decoded_formats(settings: Settings) -> list[Format]:
    """Return the formats that this server decodes, in the table's order."""
    return [each for each in FORMATS.values() if each.name in settings.formats]


def _suffixes(settings: Settings) -> list[str]:
    return [f".{suffix}" for each in _decoded_formats(settings) for suffix in each.suffixes]
