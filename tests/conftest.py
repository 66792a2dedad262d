"""Fixtures that every test may ask for."""

import contextlib
import gc
import importlib.util
import logging
import os
import shutil
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _pytest.runner import runtestprotocol
from numpy.typing import NDArray

from tests.buckets import (
    SHARED_SERVER,
    StartedServer,
    bucket,
    faulty_bucket,
    s3_server,
    start_s3_server,
)
from tests.databases import empty_server_url, postgresql, server_url
from tests.debian import make_debian_root, require_programs

__all__ = [
    "bucket",
    "empty_server_url",
    "faulty_bucket",
    "postgresql",
    "s3_server",
    "server_url",
]

REPOSITORY_DIR = Path(__file__).resolve().parents[1]


FOLDERS_WITH_A_SERVER = ("tests/browser/", "tests/conformance/")
"""Folders whose files share a browser or a server that takes seconds to start."""


SHARED_S3_SERVER = pytest.StashKey[StartedServer]()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Give all processes of pytest-xdist one S3 server in a run of all tests.

    A start of it takes as long as a hundred tests that use it.
    """
    config: pytest.Config = node.config
    if config.args != config.getini("testpaths") or importlib.util.find_spec("moto") is None:
        return
    if SHARED_S3_SERVER not in config.stash:
        stack = contextlib.ExitStack()
        config.add_cleanup(stack.close)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        config.stash[SHARED_S3_SERVER] = stack.enter_context(start_s3_server(folder))
    server = config.stash[SHARED_S3_SERVER]
    node.workerinput[SHARED_SERVER] = (server.port, str(server.log))


def import_tests_in_turn(process: int, processes: int) -> None:
    """Import every test module, each process of pytest-xdist from another one on.

    Where no bytecode is cached, as in a fresh clone, a third of the time that collection takes goes
    into compiling modules. All processes collect in one order, so each would compile every module;
    from different modules on, each compiles its part and reads what the others have compiled.
    """
    modules = sorted((REPOSITORY_DIR / "tests").rglob("test_*.py"))
    start = len(modules) * process // processes
    for module in modules[start:] + modules[:start]:
        name = ".".join(module.relative_to(REPOSITORY_DIR).with_suffix("").parts)
        # Collection, which has the marks of conftest files, imports these again and reports them.
        with contextlib.suppress(Exception, pytest.skip.Exception, pytest.fail.Exception):
            importlib.import_module(name)


def pass_logs_on() -> None:
    """Let every logger that modules have made pass its records on to the root logger.

    Torch makes 42 that do not. Pytest adds its handlers to each of those, and removes them, six
    times a test: a tenth of what a short test takes.
    """
    for logger in logging.root.manager.loggerDict.values():
        if isinstance(logger, logging.Logger):
            logger.propagate = True


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """Collect no garbage while tests are found, and never look at what they are again.

    Thousands of tests are a million objects, which each of many hundred collections would visit.
    Modules that tests import later are as many again: whole collections are ten times as rare.
    """
    gc.disable()
    try:
        worker: dict[str, Any] | None = getattr(session.config, "workerinput", None)
        if worker is not None and session.config.args == session.config.getini("testpaths"):
            import_tests_in_turn(int(worker["workerid"][2:]), worker["workercount"])
        return (yield)
    finally:
        pass_logs_on()
        gc.freeze()
        gc.set_threshold(*gc.get_threshold()[:2], 100)
        gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Report a passed test from a process of pytest-xdist once, and not six times.

    Its start, set-up and teardown that passed are shown nowhere, and the messages of them cost both
    processes a fifth of what a test does that is empty.
    """
    if not hasattr(item.config, "workerinput"):
        return None
    for report in runtestprotocol(item, nextitem=nextitem, log=False):
        if report.when == "call" or not report.passed:
            item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(nextitem: pytest.Item | None) -> None:
    """Collect all garbage in a process's last test: pytest reports what was never closed there.

    At the end of a process of pytest-xdist nothing would be reported any more.
    """
    if nextitem is None:
        gc.collect()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep the tests of one file, or of one of those folders, in one process of pytest-xdist."""
    from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]

    class FileScheduling(LoadFileScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            folders = [each for each in FOLDERS_WITH_A_SERVER if nodeid.startswith(each)]
            return folders[0] if folders else nodeid.partition("::")[0]

    return FileScheduling(config, log)


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own `UPSCALED_*` variables never change a test's outcome, nor does whether the
    package of official weights is installed: models come out of it only where a test asks for it.
    """
    for name in list(os.environ):
        if name.startswith("UPSCALED_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("UPSCALED_PACKAGED_MODELS", "false")


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of optional test data; skips where there is none."""
    folder = Path(os.environ.get("TEST_DATA_DIR", REPOSITORY_DIR.parent / "shared"))
    if not (folder / "images").is_dir():
        pytest.skip(f"no optional test data (set TEST_DATA_DIR): {folder} has no images folder")
    return folder


@pytest.fixture(scope="session")
def debian_root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The files of a bare Debian, for tests that copy them; made once, which takes a minute."""
    require_programs("chroot")
    if given := os.environ.get("TEST_BASE_ROOT"):
        yield Path(given)
        return
    require_programs("debootstrap")
    folder = tmp_path_factory.mktemp("debian") / "root"
    make_debian_root(folder)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Runs torch on one thread: on a few pixels threads mostly wait for each other."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def texture() -> NDArray[np.uint8]:
    """Coloured noise of 320x224 px that is the same on every machine: metrics of it are known."""
    noise = np.random.default_rng(7).integers(0, 256, (224, 320, 3)).astype(np.float64)
    for _ in range(2):
        moved = (np.roll(noise, 1, 0), np.roll(noise, 1, 1), np.roll(noise, (1, 1), (0, 1)))
        noise = (noise + sum(moved)) / 4
    return np.clip(np.rint(128 + (noise - 128) * 2), 0, 255).astype(np.uint8)
