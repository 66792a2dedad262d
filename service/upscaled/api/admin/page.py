"""Serve the page of administration, with all that it loads: a listener of its own has no other.

The page shows nothing by itself. It asks for an administrator's key, keeps it for as long as its
tab is open, and calls `/admin/v1` with it.
"""

from importlib.resources import files
from typing import Final

from fastapi import APIRouter

from upscaled.api.routes.pages import Endpoint, route_pages, serve_file, serve_folder

PAGE_PATHS: Final = ("/admin", "/admin/")
ASSETS_PATH: Final = "/admin/assets"
# Of the service's own pages.
_SHARED: Final = {
    "style.css": "text/css",
    "document.css": "text/css",
    "icon.svg": "image/svg+xml",
}


def build_page_router() -> APIRouter:
    """Return the routes of the page, which need no key."""
    own, shared = files("upscaled.api.admin") / "static", files("upscaled.api") / "static"
    page = serve_file((own / "admin.html").read_bytes(), "text/html")
    endpoints: dict[str, Endpoint] = {
        **dict.fromkeys(PAGE_PATHS, page),
        **serve_folder(ASSETS_PATH, own),
        **{
            f"{ASSETS_PATH}/{name}": serve_file((shared / name).read_bytes(), media_type)
            for name, media_type in _SHARED.items()
        },
    }
    return route_pages(endpoints)
