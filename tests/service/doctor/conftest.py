"""Settings in a folder of the test's own, and the PostgreSQL server of the state's tests."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.service.state.conftest import postgresql
from upscaled.config import Settings, load_settings

__all__ = ["make_settings", "postgresql"]

MakeSettings = Callable[..., Settings]


@pytest.fixture
def make_settings(tmp_path: Path) -> MakeSettings:
    def make(**values: object) -> Settings:
        return load_settings({}, **{"data_dir": tmp_path / "data", **values})

    return make
