"""These tests run on uvloop too, as `upscaled serve` does."""

from tests.service.pool.conftest import pytest_asyncio_loop_factories

__all__ = ["pytest_asyncio_loop_factories"]
