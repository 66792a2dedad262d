"""Fixtures that every test may ask for."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.debian import make_debian_root, require_programs

REPOSITORY_DIR = Path(__file__).resolve().parents[1]


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
