"""Fixtures for models: a store of shipped stand-ins, and the published implementation."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.models.file_server import Server, serving
from tests.reference.standins import (
    PublishedCommunity,
    PublishedRealEsrgan,
    import_community,
    import_published,
)
from upscaled_models.families.plain import plain_shape
from upscaled_models.files import hash_file
from upscaled_models.store import ModelStore
from upscaled_models.weights import build_network


@pytest.fixture(scope="session")
def published() -> PublishedRealEsrgan:
    """Import the published Real-ESRGAN; skip where it is not installed."""
    try:
        return import_published()
    except ModuleNotFoundError as error:
        pytest.skip(f"tests/reference/requirements.lock is not installed: {error}")


@pytest.fixture(scope="session")
def community() -> PublishedCommunity:
    """Import SPAN and RealPLKSR of spandrel; skip where it is not installed."""
    try:
        return import_community()
    except ModuleNotFoundError as error:
        pytest.skip(f"tests/reference/requirements.lock is not installed: {error}")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Serve a file on loopback, past any proxy."""
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    with serving() as server:
        yield server


@pytest.fixture
def default_dir(tmp_path: Path) -> Path:
    """Make a folder of shipped models as in a release, with one tiny network in it."""
    from safetensors.torch import save_file

    folder = tmp_path / "default"
    folder.mkdir()
    file = folder / "upscaled-x4.safetensors"
    save_file(build_network("plain", plain_shape(scale=4, layers=1, features=4)).state_dict(), file)
    entry = {
        "file": file.name,
        "sha256": hash_file(file),
        "size_bytes": file.stat().st_size,
        "family": "plain",
        "shape": plain_shape(scale=4, layers=1, features=4),
        "licence": "Apache-2.0",
        "bits": 16,
        "keeps_colour": True,
    }
    (folder / "manifest.json").write_text(json.dumps({"upscaled-x4": entry}))
    return folder


@pytest.fixture
def store(tmp_path: Path, default_dir: Path) -> ModelStore:
    return ModelStore(tmp_path / "models", default_dir)


@pytest.fixture
def animevideo_file(shared_dir: Path) -> Path:
    """Return the official realesr-animevideov3 file; skip where it is missing."""
    file = shared_dir / "weights" / "realesr-animevideov3.pth"
    if not file.is_file():
        pytest.skip(f"no {file}")
    return file
