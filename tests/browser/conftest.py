"""Debian's Chromium, headless, with a page that complains about every word on its console."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.browser.painting import PaintingExecutor
from tests.browser.playground import Playground
from tests.conftest import REPOSITORY_DIR
from tests.service.api.serving import Service, serve

# Nothing that talks to the world by itself.
ARGUMENTS = (
    *("--headless", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)
DESKTOP = {"width": 1280, "height": 860}
PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="package")
def chromium() -> Iterator[Any]:
    """One browser for the folder. Not for the session: its event loop would be in others' way."""
    with open_chromium() as browser:
        yield browser


@contextmanager
def open_chromium() -> Iterator[Any]:
    """A browser, and an event loop in this thread until it is closed."""
    # Here: each process of the tests collects this folder, and few run it.
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("Chromium is not installed: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def painter() -> PaintingExecutor:
    return PaintingExecutor()


@pytest.fixture(scope="package")
def service(
    tmp_path_factory: pytest.TempPathFactory, painter: PaintingExecutor
) -> Iterator[Service]:
    with serve(tmp_path_factory.mktemp("browser"), painter) as running:
        yield running


@pytest.fixture
def open_page(chromium: Any, service: Service) -> Iterator[Callable[..., Playground]]:
    """Open the page at / in a context of its own, as a new visitor does.

    Afterwards its console may only hold what `Playground.expect_console_error` was called for.
    """
    with ExitStack() as stack:
        opened: list[Playground] = []

        def open_one(path: str = "/", url: str = "", **options: Any) -> Playground:
            context = chromium.new_context(
                **{"viewport": DESKTOP, "reduced_motion": "reduce", **options}
            )
            stack.callback(context.close)
            context.set_default_timeout(60_000)
            playground = Playground(context.new_page(), url or service.url, service.key)
            opened.append(playground)
            playground.open(path)
            return playground

        yield open_one
        for each in opened:
            assert each.unexpected_console_errors() == []


@pytest.fixture(scope="session")
def axe() -> str:
    """The source of axe-core, from where npm put it."""
    folders = [Path(folder) for folder in os.environ.get("NODE_PATH", "").split(":") if folder]
    folders.append(REPOSITORY_DIR / ".venv" / "node" / "node_modules")
    for folder in folders:
        source = folder / "axe-core" / "axe.min.js"
        if source.is_file():
            return source.read_text()
    pytest.skip("axe-core is not installed: npm install axe-core, and set NODE_PATH")
