"""Services to talk to: one shared by all tests that leave it as it was, others made to measure."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.certificates import Certificate, make_certificate
from tests.compiled_statements import shared_statements
from tests.service.api.serving import MakeService, Service, serve

__all__ = ["shared_statements"]


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Roomy limits, no metering, loopback allowed as a source. Do not change its state."""
    with serve(tmp_path_factory.mktemp("service"), source_private_cidrs="127.0.0.1/32") as running:
        yield running


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="session")
def tls_service(
    tmp_path_factory: pytest.TempPathFactory, certificate: Certificate
) -> Iterator[Service]:
    """As `service`, over TLS."""
    with serve(tmp_path_factory.mktemp("tls"), certificate=certificate) as running:
        yield running


@pytest.fixture
def make_service(tmp_path: Path) -> Iterator[MakeService]:
    """A factory: settings, an executor, credits or a clock in, a running service out."""
    with ExitStack() as stack:

        def make(*arguments: Any, **settings: Any) -> Service:
            data_dir = tmp_path / f"service-{len(list(tmp_path.iterdir()))}"
            return stack.enter_context(serve(data_dir, *arguments, **settings))

        yield make
