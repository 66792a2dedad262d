"""Run the cluster that all tests here share, and a single machine to compare results with."""

import hashlib
import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import requests

from tests.cluster.bed import MODEL_X4, Bed
from tests.cluster.clients import PICTURES
from tests.cluster.starting import running_bed
from tests.running import serve
from tests.service.pool.pools import picture


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("cluster").addoption(
        "--chaos",
        action="store_true",
        help="run a Ray cluster whose parts fail in turn; takes a quarter of an hour",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark all tests here as slow, skip them unless asked for, and give the bed time to start."""
    is_wanted = config.getoption("--chaos", default=False)
    here = str(Path(__file__).parent) + os.sep
    for item in items:
        if str(item.path).startswith(here):
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.timeout(900))
            if not is_wanted:
                item.add_marker(pytest.mark.skip(reason="a cluster takes long: give --chaos"))


@pytest.fixture(scope="package")
def running() -> Iterator[Bed]:
    if find_spec("ray") is None:
        pytest.skip("ray is not installed (requirements-cluster.lock)")
    pytest.importorskip("obstore", reason="obstore is not installed")
    with running_bed() as bed:
        yield bed


@pytest.fixture
def bed(running: Bed) -> Bed:
    """The running cluster, once all its parts are ready."""
    running.wait_healthy()
    return running


@pytest.fixture(scope="package")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, int], str]:
    """The SHA-256 of what a single machine makes of each of the clients' pictures."""
    digests = {}
    with serve(
        tmp_path_factory.mktemp("single"),
        UPSCALED_RATE_PER_S="1000",
        UPSCALED_RATE_BURST="1000",
        UPSCALED_THREADS="1",
        UPSCALED_MODEL_X4=MODEL_X4,
    ) as single:
        for side_px, scale in PICTURES:
            answer = requests.post(
                f"{single.url}/v1/upscale",
                headers={"X-API-KEY": single.key, "Accept": "image/*"},
                files={"image": picture(side_px)},
                data={"scale": str(scale)},
                timeout=100,
            )
            assert answer.status_code == 200
            digests[side_px, scale] = hashlib.sha256(answer.content).hexdigest()
    return digests
