"""Fixtures that every test may ask for."""

import os
from pathlib import Path

import pytest

REPOSITORY_DIR = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own `UPSCALED_*` variables never change a test's outcome."""
    for name in list(os.environ):
        if name.startswith("UPSCALED_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of optional test data; skips where there is none."""
    folder = Path(os.environ.get("TEST_DATA_DIR", REPOSITORY_DIR.parent / "shared"))
    if not (folder / "images").is_dir():
        pytest.skip(f"no optional test data (set TEST_DATA_DIR): {folder} has no images folder")
    return folder
