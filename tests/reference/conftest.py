"""The fixtures that tests of models have: the published implementation and an official file."""

from tests.models.conftest import animevideo_file, published

__all__ = ["animevideo_file", "published"]
