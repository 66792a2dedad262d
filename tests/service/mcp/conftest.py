"""Services made to measure, as for the tests of the HTTP service itself."""

from tests.service.api.conftest import make_service

__all__ = ["make_service"]
