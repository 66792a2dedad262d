"""Settings in a folder of the test's own."""

from collections.abc import Callable
from pathlib import Path

import pytest

from upscaled.config import Settings, load_settings

MakeSettings = Callable[..., Settings]


@pytest.fixture
def make_settings(tmp_path: Path) -> MakeSettings:
    def make(**values: object) -> Settings:
        return load_settings({}, **{"data_dir": tmp_path / "data", **values})

    return make
