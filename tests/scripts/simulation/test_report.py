import json
from dataclasses import replace
from typing import Any

import pytest

from scripts.simulation.plan import Machines, Plan
from scripts.simulation.queueing import SPREADS
from scripts.simulation.report import to_document, to_table
from scripts.simulation.sizing import size
from tests.scripts.simulation.pictures import alike, second_each

pytestmark = pytest.mark.usefixtures("short_simulations")

PLAN = Plan(images_per_hour=3600, p95_s=60)


def document_of(plan: Plan) -> dict[str, Any]:
    costs, pictures = second_each(), alike()
    document: dict[str, Any] = json.loads(
        json.dumps(to_document(plan, costs, pictures, size(plan, costs, pictures)))
    )
    return document


def test_the_document_and_the_tables_have_the_same_values() -> None:
    document = document_of(PLAN)
    assert document["machines"] == document["front_ends"] == document["workers"] == 2
    assert document["breaks_first"] == "workers"
    assert document["spreads"].keys() == set(SPREADS)
    table = to_table(document)
    assert "Needed: 2 machines, each one front end, 2 workers in all, 50% busy." in table
    assert "| workers | 7,200 | 50% |" in table
    for name, figures in document["spreads"].items():
        assert f"| {name} | {figures['p50_s']:.3g} s | {figures['p95_s']:.3g} s |" in table


@pytest.mark.parametrize(
    ("machine", "first"),
    [
        (Machines(memory_gib=1), "memory"),
        (Machines(database_images_per_s=0.5), "database, if metered"),
        (Machines(network_gbit_per_s=0.001), "network of the machines"),
        (Machines(bucket_writes_per_s=0.1), "writes of a bucket's prefix"),
    ],
)
def test_what_breaks_first_is_named(machine: Machines, first: str) -> None:
    assert document_of(replace(PLAN, machine=machine))["breaks_first"] == first
