"""Machines for a plan, and what is full first, against figures that are worked out by hand."""

from dataclasses import replace

import pytest

from scripts.simulation.plan import Machines, Plan
from scripts.simulation.sizing import Unreachable, find_limits, size
from tests.scripts.simulation.pictures import alike, second_each

pytestmark = pytest.mark.usefixtures("short_simulations")

PLAN = Plan(images_per_hour=3600, p95_s=8, machine=Machines(slots=1))


def test_a_long_wanted_p95_needs_only_machines_that_are_not_full() -> None:
    sizing = size(replace(PLAN, p95_s=60), second_each(), alike())
    assert sizing.machines == 2
    assert sizing.load == pytest.approx(0.5)


def test_a_shorter_wanted_p95_needs_more_machines_and_is_met() -> None:
    plan = replace(PLAN, images_per_hour=36_000, p95_s=1.5)
    sizing = size(plan, second_each(), alike())
    assert sizing.machines > size(replace(plan, p95_s=10), second_each(), alike()).machines
    assert sizing.by_spread[plan.spread].percentile_s(95) <= 1.5


def test_workers_count_as_machines_do() -> None:
    plan = replace(PLAN, images_per_hour=36_000, p95_s=60)
    alone = size(plan, second_each(), alike())
    fourfold = size(replace(plan, machine=Machines(workers=4, slots=1)), second_each(), alike())
    assert alone.machines == 12
    assert fourfold.machines == 3


def test_a_full_front_end_needs_more_machines() -> None:
    sizing = size(replace(PLAN, p95_s=60), second_each(front_end_s=(2.0, 0.0)), alike())
    assert sizing.machines == 3


def test_images_that_a_short_queue_refuses_need_more_machines() -> None:
    plan = replace(PLAN, images_per_hour=36_000, p95_s=60)
    short = replace(plan, machine=Machines(slots=1, max_queue=1))
    long_queue, short_queue = (size(each, second_each(), alike()) for each in (plan, short))
    assert short_queue.machines > long_queue.machines
    assert short_queue.by_spread[plan.spread].refused_share <= plan.refused


def test_a_wanted_p95_shorter_than_a_picture_alone_is_out_of_reach() -> None:
    with pytest.raises(Unreachable, match="alone on a worker"):
        size(replace(PLAN, p95_s=0.9), second_each(), alike())


def test_limits_are_rates_of_all_machines_and_the_lowest_is_first() -> None:
    machine = Machines(workers=2, network_gbit_per_s=0.8, database_images_per_s=3)
    plan = Plan(images_per_hour=100, p95_s=9, machine=machine)
    limits = find_limits(plan, second_each(front_end_s=(0.1, 0.05)), alike(), machines=5)
    rates = {each.resource: each.images_per_hour for each in limits}
    assert rates == pytest.approx(
        {
            "database, if metered": 3 * 3600,
            "workers": 5 * 2 * 3600,
            "front ends' processor": 5 / (0.1 + 3 * 0.05) * 3600,
            "network of the machines": 5 * 1e8 / 4e6 * 3600,
            "writes of a bucket's prefix": 3500 * 3600,
        }
    )
    assert list(rates.values()) == sorted(rates.values())
    assert limits[0].resource == "database, if metered"


def test_answers_without_urls_use_no_bucket_and_less_network() -> None:
    plan = replace(PLAN, url_share=0.0)
    limits = find_limits(plan, second_each(), alike(), machines=1)
    rates = {each.resource: each.images_per_hour for each in limits}
    assert "writes of a bucket's prefix" not in rates
    assert rates["network of the machines"] == pytest.approx(1e9 / 8 / 2e6 * 3600)


def test_memory_is_that_of_the_settings_and_kept_results_those_of_an_hour() -> None:
    machine = Machines(workers=2, slots=4, max_queue=16, max_file_bytes=2**25)
    plan = Plan(images_per_hour=1000, p95_s=60, machine=machine)
    sizing = size(plan, second_each(), alike())
    assert sizing.memory_gib == pytest.approx(2 * (1.4 + 0.2) + (16 + 8 + 8) / 32)
    assert sizing.kept_gib == pytest.approx(1000 * 2e6 / 2**30)
