"""A service with an administrator, for all tests of administration that leave others their keys."""

from collections.abc import Iterator

import pytest

from tests.service.api.admin.calls import KEYS
from tests.service.api.serving import Service, serve


@pytest.fixture(scope="package")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    data_dir = tmp_path_factory.mktemp("admin") / "data"
    with serve(data_dir, admin_keys=KEYS, cors_origins="*") as running:
        yield running
