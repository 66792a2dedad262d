"""Schemathesis reads the OpenAPI document and looks for answers that are not in it.

Every operation, right and wrong, through a real socket: statuses, media types, headers, schemas,
authentication and methods are compared with the document.

Schemathesis is loaded, and its cases are made, when the test runs: at the collection, each process
of pytest-xdist would do both.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from tests.service.api.pictures import picture
from tests.service.api.serving import Service, serve
from upscaled.api.request.choices import DRY_RUN_HEADER
from upscaled.api.schemas import Estimate

if TYPE_CHECKING:
    from schemathesis import Case


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Short time limits: made-up hosts are looked up, and made-up requests awaited, in vain."""
    with serve(tmp_path_factory.mktemp("described"), source_timeout_s=0.5) as service:
        service.app.state.context.progress.arrival_wait_s = 0.01
        yield service


def check(case: "Case[Any]", described: Service) -> None:
    from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

    # Nearly every file and URL that a machine makes up is rightly refused, and beside a good
    # `image` an `image_url` of any kind is rightly ignored: what is taken and what is not, other
    # tests say.
    not_promised: list[Any] = [positive_data_acceptance, negative_data_rejection]
    key = described.headers if case.operation.definition.raw.get("security") else None
    response = case.call(base_url=described.url, headers=key)
    is_dry_run = (
        dict[str, str](case.headers or {}).get(DRY_RUN_HEADER, "").strip().lower() == "true"
    )
    if response.status_code == 200 and is_dry_run:
        Estimate.model_validate_json(response.content)  # no schema of an answer: see `openapi`
    else:
        case.validate_response(response, excluded_checks=not_promised, headers=key)
    assert response.headers["x-request-id"]


def list_operations(document: dict[str, Any]) -> list[tuple[str, Callable[..., None]]]:
    """Each operation's name, and what runs `check` on its cases."""
    import schemathesis
    from schemathesis.checks import load_all_checks
    from schemathesis.core.result import Ok
    from schemathesis.pytest.lazy import get_all_tests

    load_all_checks()
    # Left alone, a machine never finds a picture: half of its files are good ones.
    files = st.sampled_from([picture(), picture(mode="RGBA")]) | st.binary(max_size=100)
    schemathesis.openapi.format("binary", files)
    found = get_all_tests(
        schema=schemathesis.openapi.from_dict(document),
        test_func=check,
        settings=settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck)),
        given_kwargs=None,
    )
    operations = []
    for each in found:
        assert isinstance(each, Ok), each.err()
        operation, run = each.ok()
        operations.append((operation.label, run))
    return operations


@pytest.mark.slow
def test_no_answer_is_outside_the_document(described: Service, subtests: pytest.Subtests) -> None:
    operations = list_operations(described.app.openapi())
    assert len(operations) > 10
    for name, run in operations:
        with subtests.test(name):
            run(described=described)
