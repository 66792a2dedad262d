"""Render the operators' pages from Markdown, with links that lead to what is served."""

import html
import re
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.resources import files
from itertools import pairwise
from pathlib import PurePosixPath
from string import Template
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from markdown_it.token import Token

_HTML: Final = frozenset({"html_block", "html_inline"})


def render_page(text: str) -> str:
    """Return a page's Markdown as an HTML document.

    Headings get the ids that links between pages name. A link to another page leads to where that
    is served; one to a file of the repository, which is not served, becomes plain text. Comments
    are left out, and other HTML is not let through. Cells have their column's heading, which a
    narrow screen shows beside them.
    """
    # Imported for the first page that is asked for, not at every start.
    from markdown_it import MarkdownIt

    renderer = MarkdownIt("commonmark").enable("table")
    tokens = [token for token in renderer.parse(text) if token.type not in _HTML]
    title = "page"
    for opening, inline in pairwise(tokens):
        if opening.type == "heading_open":
            opening.attrSet("id", _to_anchor(inline.content))
            if opening.tag == "h1":
                title = inline.content
    _head_cells(tokens)
    for token in tokens:
        if token.children:
            token.children = list(_keep_served(token.children))
    body = renderer.renderer.render(tokens, renderer.options, {})
    return _read_template().substitute(title=html.escape(title), body=body)


def _head_cells(tokens: "Iterable[Token]") -> None:
    headings: list[str] = []
    column = 0
    for opening, inline in pairwise(tokens):
        if opening.type == "thead_open":
            headings = []
        elif opening.type == "tr_open":
            column = 0
        elif opening.type == "th_open":
            headings.append("".join(part.content for part in inline.children or ()))
        elif opening.type == "td_open":
            opening.attrSet("data-heading", headings[column])
            column += 1


@cache
def _read_template() -> Template:
    return Template((files("upscaled.api") / "static" / "document.html").read_text("utf-8"))


def _to_anchor(heading: str) -> str:
    """Return the id that repository hosts give a heading: lower case, joined by hyphens."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _keep_served(children: "Iterable[Token]") -> "Iterator[Token]":
    """Yield a paragraph's tokens, with links to pages rewritten and links elsewhere removed."""
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
    """Return the path of a link's target; None for a file of the repository alone."""
    path, mark, anchor = target.partition("#")
    if "://" in target or not path:
        return target
    if "/" in path or not path.endswith(".md"):
        return None
    return PurePosixPath(path).stem + mark + anchor
