"""The kit's options, and the servers it runs against.

Without `--base-url` the kit starts the real server of this checkout on loopback, twice: `target`,
as open as a kit needs it, and `strict`, with the defaults that refuse (rate, credits, private
addresses).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.bilinear_model import BILINEAR, add_bilinear_model
from tests.conformance.answer_checks import check_result_json
from tests.conformance.listener import Listener, answers, listening
from tests.conformance.own_settings import LOOPBACK, OPEN, STRICT
from tests.conformance.pictures import PICTURES, doubled
from tests.conformance.raw_http import RateLimiter, Target
from tests.conformance.requesting import Source, perform
from tests.conformance.table import form
from tests.running import Server, serve


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("conformance")
    group.addoption("--base-url", dest="base_url", help="server to test; none: start our own")
    group.addoption("--api-key", dest="api_key", default="", help="a key that it takes")
    group.addoption(
        "--hosted", action="store_true", help="leave out what is promised by ours alone"
    )
    group.addoption(
        "--per-second", type=float, default=4.0, help="requests per second, with --base-url"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "ours: decided by this project, not promised by the vendor")
    config.addinivalue_line(
        "markers", "timeout(seconds): for pytest-timeout, where it is installed"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("hosted", False):
        return
    kept = [item for item in items if item.get_closest_marker("ours") is None]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept


@pytest.fixture(scope="package")
def base_url(request: pytest.FixtureRequest) -> str | None:
    given: str | None = request.config.getoption("base_url", None)
    return given.rstrip("/") if given else None


@pytest.fixture(scope="package")
def own_server(
    request: pytest.FixtureRequest, base_url: str | None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """Our own server without the limits that would slow a kit down, and free to fetch from here."""
    if base_url is not None:
        pytest.skip("needs the server that the kit starts itself: run without --base-url")
    with serve_model(request.config, tmp_path_factory.mktemp("open"), OPEN) as server:
        yield server


@pytest.fixture(scope="package")
def strict_server(
    request: pytest.FixtureRequest, base_url: str | None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """Our own server as it is by default, but metered, and with results that expire at once."""
    if base_url is not None:
        pytest.skip("needs the server that the kit starts itself: run without --base-url")
    with serve_model(request.config, tmp_path_factory.mktemp("strict"), STRICT) as server:
        yield server


@contextmanager
def serve_model(
    config: pytest.Config, folder: Path, settings: Mapping[str, Any]
) -> Iterator[Server]:
    """Run our own server with the models that ship, or a cheap one in the quick suite."""
    models: dict[str, Any] = {}
    if "not slow" in config.getoption("markexpr", ""):
        add_bilinear_model(folder)
        models = BILINEAR
    with serve(folder, **settings, **models) as server:
        yield server


@pytest.fixture(scope="package")
def target(request: pytest.FixtureRequest, base_url: str | None) -> Target:
    if base_url is None:
        server: Server = request.getfixturevalue("own_server")
        return Target(server.url, server.key)
    api_key = request.config.getoption("api_key")
    if not api_key:
        pytest.exit("--base-url needs --api-key", returncode=4)
    return Target(base_url, api_key, RateLimiter(request.config.getoption("per_second")))


@pytest.fixture(scope="package")
def strict(strict_server: Server) -> Target:
    """The strict server, paced just under the rate that it allows."""
    return Target(
        strict_server.url, strict_server.create_key("strict", credits=1000), RateLimiter(4.5)
    )


@pytest.fixture(scope="package")
def listener(base_url: str | None) -> Iterator[Listener]:
    """Start the web server that our own server fetches from; another one can't reach it."""
    if base_url is not None:
        pytest.skip("needs a server that may fetch from this machine: run without --base-url")
    with listening(LOOPBACK) as listener:
        yield listener


@pytest.fixture(scope="package")
def source(request: pytest.FixtureRequest, base_url: str | None, target: Target) -> Source:
    """A URL that the server under test can reach.

    Our own server fetches from the kit's listener. Another one can't be expected to reach this
    machine: there it is a result of its own, fed back.
    """
    picture = PICTURES["photo"]
    if base_url is None:
        listener: Listener = request.getfixturevalue("listener")
        return Source(listener.on("/photo.jpg", answers(200, picture.data)), picture)
    result_url = check_result_json(perform(form("photo"), target))
    return Source(result_url, doubled(picture))
