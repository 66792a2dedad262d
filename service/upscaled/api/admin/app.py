"""Build the application of administration, and put it beside the contract's or apart from it.

It has its own middleware: no other origin may call it from a browser, whatever
`UPSCALED_CORS_ORIGINS` lets call the contract. Its OpenAPI document is its own too.

Its page shows nothing by itself. It asks for an administrator's key, keeps it for as long as its
tab is open, and calls `/admin/v1` with it. What the page loads is served with it: a listener of its
own has no other.
"""

from importlib.resources import files
from typing import Any, Final

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.middleware import Middleware
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

import upscaled
from upscaled.api.admin import keys, reports, webhooks
from upscaled.api.admin.authentication import AdminKeyMiddleware, GuessLimiter, is_below
from upscaled.api.dependencies import Context
from upscaled.api.errors import EXCEPTION_HANDLERS, handle_error
from upscaled.api.middleware import AccessRecordMiddleware, LingeringCloseMiddleware
from upscaled.api.protocol.registry import build_admin_connections
from upscaled.api.routes.pages import Endpoint, route_pages, serve_file, serve_folder
from upscaled.errors import InvalidParameter, NotFound
from upscaled.state.errors import (
    InvalidValue,
    NameTaken,
    UnknownName,
)

ADMIN_ROOT: Final = "/admin"
OPENAPI_PATH: Final = f"{ADMIN_ROOT}/openapi.json"
PAGE_PATHS: Final = ("/admin", "/admin/")
ASSETS_PATH: Final = "/admin/assets"
# Files of the service's own pages that this one loads too.
_SHARED: Final = frozenset({"style.css", "document.css", "icon.svg"})


class AdminDispatchMiddleware:
    """Hand requests under `ADMIN_ROOT` to the application of administration."""

    def __init__(self, app: ASGIApp, admin: ASGIApp) -> None:
        self.app = app
        self._admin = admin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_admin = scope["type"] == "http" and is_below(scope["path"], ADMIN_ROOT)
        await (self._admin if is_admin else self.app)(scope, receive, send)


def create_admin_app(context: Context) -> FastAPI:
    """Build the application of administration, for the keys that the settings name."""
    settings = context.settings
    hashes = dict(key.split(":", 1) for key in settings.admin_keys)
    app = FastAPI(
        exception_handlers=EXCEPTION_HANDLERS | _HANDLERS,
        middleware=[
            Middleware(LingeringCloseMiddleware),
            Middleware(AccessRecordMiddleware, reporter=context.reporter),
            Middleware(AdminKeyMiddleware, hashes=hashes, limiter=GuessLimiter()),
        ],
        redirect_slashes=False,
        openapi_url=OPENAPI_PATH,
        docs_url=None,
        redoc_url=None,
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    routers = (keys.router, webhooks.router, reports.router, build_page_router())
    for router in routers:
        app.include_router(router)
    routes = [route for router in routers for route in router.routes]
    app.openapi = lambda: describe_administration(routes)  # type: ignore[method-assign]
    app.state.context = context
    app.state.routes = routes
    app.state.connections = build_admin_connections(settings)
    return app


def describe_administration(routes: list[BaseRoute]) -> dict[str, Any]:
    document = get_openapi(
        title="upscaled administration",
        version=upscaled.__version__,
        description="Keys, credits, webhooks, usage and the audit log. Errors have the contract's "
        "form.",
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        routes=routes,
    )
    for path in document["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)  # answered 400, in the contract's form
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)
    return document


async def _refuse(request: Request, error: Exception) -> Response:
    """Answer what the state refuses in the contract's form, with the state's own text."""
    if isinstance(error, UnknownName):
        return await handle_error(request, NotFound(str(error)))
    return await handle_error(request, InvalidParameter(str(error)))


async def _refuse_invalid(request: Request, error: Exception) -> Response:
    """Answer a body or query that is not as described, and name the first field of it."""
    if not isinstance(error, RequestValidationError):
        raise error
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:]) or "the body"
    return await handle_error(request, InvalidParameter(f"{where}: {first['msg']}"))


_HANDLERS: Final[dict[Any, Any]] = {
    RequestValidationError: _refuse_invalid,
    **dict.fromkeys((InvalidValue, NameTaken, UnknownName), _refuse),
}


def build_page_router() -> APIRouter:
    """Return the routes of the page, which need no key."""
    own, shared = files("upscaled.api.admin") / "static", files("upscaled.api") / "static"
    page = serve_file((own / "admin.html").read_bytes(), "text/html")
    endpoints: dict[str, Endpoint] = {
        **dict.fromkeys(PAGE_PATHS, page),
        **serve_folder(ASSETS_PATH, own),
        **serve_folder(ASSETS_PATH, shared, _SHARED),
    }
    return route_pages(endpoints)
