"""Serves the operators' pages of `upscaled/docs` as HTML, at `/docs/NAME`.

They are the same files that the repository shows: one source, also on machines without a network.
"""

import html
import re
from collections.abc import Awaitable, Callable, Iterable
from importlib.resources import files
from importlib.resources.abc import Traversable
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Final

from fastapi import APIRouter
from markdown_it import MarkdownIt
from markdown_it.token import Token
from starlette.responses import Response

from upscaled.api.routes.pages import HEADERS, MEDIA_TYPES, add_page

_TEMPLATE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>upscaled: {title}</title>
<link rel="icon" href="../assets/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="../assets/style.css">
</head>
<body>
<header class="bar">
  <a class="brand" href="../">
    <img src="../assets/icon.svg" width="28" height="28" alt="">upscaled
  </a>
  <nav aria-label="Pages"><a href="../">Try it</a> <a href="../docs">API and pages</a></nav>
</header>
<main class="document">
{body}</main>
</body>
</html>
"""
_HTML: Final = frozenset({"html_block", "html_inline"})


def build_router() -> APIRouter:
    """Return a route for each page and for each picture that a page shows."""
    router = APIRouter(include_in_schema=False)
    folder = files("upscaled") / "docs"
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if file.name.endswith(".md"):
            add_page(router, f"/docs/{file.name.removesuffix('.md')}", _serve_page(file))
        elif file.is_dir():
            for picture in file.iterdir():
                add_page(router, f"/docs/{file.name}/{picture.name}", _serve_picture(picture))
    return router


def render_page(text: str) -> str:
    """Turn a page's Markdown into a whole HTML document.

    Headings get the ids that links between pages name. A link to another page leads to where that
    is served; one to a file of the repository, which is not served, becomes plain text. Comments
    are left out, and other HTML is not let through.
    """
    renderer = MarkdownIt("commonmark").enable("table")
    tokens = [token for token in renderer.parse(text) if token.type not in _HTML]
    title = "page"
    for opening, inline in pairwise(tokens):
        if opening.type == "heading_open":
            opening.attrSet("id", _to_anchor(inline.content))
            if opening.tag == "h1":
                title = inline.content
    for token in tokens:
        if token.children:
            token.children = list(_keep_served(token.children))
    body = renderer.renderer.render(tokens, renderer.options, {})
    return _TEMPLATE.format(title=html.escape(title), body=body)


def _to_anchor(heading: str) -> str:
    """The id that repository hosts give a heading: lower case, words joined by hyphens."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _keep_served(children: Iterable[Token]) -> Iterable[Token]:
    """The tokens of one paragraph, with links to pages rewritten and links elsewhere removed."""
    is_dropped = False
    for token in children:
        if token.type == "link_open":
            target = _to_served(str(token.attrGet("href")))
            is_dropped = target is None
            if target is None:
                continue
            token.attrSet("href", target)
        elif token.type == "link_close" and is_dropped:
            is_dropped = False
            continue
        elif token.type in _HTML:
            continue
        yield token


def _to_served(target: str) -> str | None:
    """Where a link's target is served; None for a file of the repository alone."""
    path, mark, anchor = target.partition("#")
    if "://" in target or not path:
        return target
    if "/" in path or not path.endswith(".md"):
        return None
    return PurePosixPath(path).stem + mark + anchor


def _serve_page(file: Traversable) -> Callable[[], Awaitable[Response]]:
    """Return an endpoint that renders the page when it is first requested, and keeps it."""
    rendered: list[str] = []

    async def get_page() -> Response:
        if not rendered:
            rendered.append(render_page(file.read_text(encoding="utf-8")))
        return Response(rendered[0], media_type="text/html", headers=HEADERS)

    return get_page


def _serve_picture(file: Traversable) -> Callable[[], Awaitable[Response]]:
    media_type = MEDIA_TYPES[PurePosixPath(file.name).suffix]

    async def get_picture() -> Response:
        return Response(file.read_bytes(), media_type=media_type, headers=HEADERS)

    return get_picture
