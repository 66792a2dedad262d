"""Schemathesis reads the OpenAPI document and looks for answers that are not in it.

Every operation, right and wrong, through a real socket: statuses, media types, headers, schemas,
authentication and methods are compared with the document.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from tests.service.api.executors import ResizingExecutor
from tests.service.api.pictures import picture
from tests.service.api.serving import Service, serve
from upscaled.api.app import create_app
from upscaled.api.dry_run import DRY_RUN_HEADER
from upscaled.api.schemas import Estimate
from upscaled.config import load_settings
from upscaled.state import open_state

# Nearly every file and URL that a machine makes up is rightly refused, and beside a good `image` an
# `image_url` of any kind is rightly ignored: what is taken and what is not, other tests say.
NOT_PROMISED: list[Any] = [positive_data_acceptance, negative_data_rejection]

# Left alone, a machine never finds a picture: half of its files are good ones.
schemathesis.openapi.format(
    "binary", st.sampled_from([picture(), picture(mode="RGBA")]) | st.binary(max_size=100)
)


def describe() -> dict[str, Any]:
    """Return the OpenAPI document, which the tests are made of."""
    with tempfile.TemporaryDirectory() as folder:
        table = load_settings({}, data_dir=Path(folder))
        with open_state(table) as state:
            return create_app(table, ResizingExecutor(), state).openapi()


document = schemathesis.openapi.from_dict(describe())


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Short time limits: made-up hosts are looked up, and made-up requests awaited, in vain."""
    with serve(tmp_path_factory.mktemp("described"), source_timeout_s=0.5) as service:
        service.app.state.context.progress.arrival_wait_s = 0.01
        yield service


@document.parametrize()
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_answer_is_outside_the_document(
    case: schemathesis.Case[Any], described: Service
) -> None:
    key = described.headers if case.operation.definition.raw.get("security") else None
    response = case.call(base_url=described.url, headers=key)
    is_dry_run = (
        dict[str, str](case.headers or {}).get(DRY_RUN_HEADER, "").strip().lower() == "true"
    )
    if response.status_code == 200 and is_dry_run:
        Estimate.model_validate_json(response.content)  # no schema of an answer: see `openapi`
    else:
        case.validate_response(response, excluded_checks=NOT_PROMISED, headers=key)
    assert response.headers["x-request-id"]
