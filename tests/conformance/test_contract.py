"""Every row of the table, each a test whose name is its claim."""

import pytest

from tests.conformance.answer_checks import check_answer
from tests.conformance.raw_http import Target
from tests.conformance.requesting import Source, needs_source, perform
from tests.conformance.rows import ROWS
from tests.conformance.table import Row


def as_parameter(row: Row) -> object:
    marks = [pytest.mark.slow, pytest.mark.timeout(600)] if row.is_slow else []
    marks += [pytest.mark.ours] if row.mark == "ours" else []
    return pytest.param(row, id=row.claim, marks=marks)


@pytest.mark.parametrize("row", [as_parameter(row) for row in ROWS])
def test_the_answer_is_what_the_row_of_the_contract_says(
    row: Row, target: Target, request: pytest.FixtureRequest
) -> None:
    print(f"the contract's line: {row.line}")  # shown when the row fails
    source: Source | None = None
    if needs_source(row.request):
        source = request.getfixturevalue("source")
    check_answer(perform(row.request, target, source), row, target, source)


def test_every_claim_is_made_once() -> None:
    claims = [row.claim for row in ROWS]
    assert sorted(claims) == sorted(set(claims))
