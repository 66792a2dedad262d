"""The fixtures that tests of models have: the published implementation and one thread."""

from tests.models.conftest import animevideo_file, one_thread, published

__all__ = ["animevideo_file", "one_thread", "published"]
