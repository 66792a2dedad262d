import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from scripts.benchmark.contestant import Absent, Done, Entry, Runner, run_once
from scripts.benchmark.pictures import Pixels
from scripts.benchmark.race import Race, run_race

order: list[str] = []


class Runs:
    """Takes part with the given seconds, one after another; the first is the warm-up's."""

    def __init__(self, entry: Entry, seconds: list[float]) -> None:
        self.label = f"it {entry.precision}"
        self._name = entry.model
        self._seconds = iter(seconds)

    def run_once(self) -> Done:
        order.append(self._name)
        if self._name == "mortal" and order.count("mortal") == 2:
            raise Absent("died")
        return Done(next(self._seconds), gflop=6.0)

    def picture(self) -> Pixels | None:
        return np.full((2, 2, 3), 100 if self._name == "ours" else 103, np.uint8)

    def peak_device_mib(self) -> float | None:
        return None


SECONDS = {
    "mortal": [9.0],
    "ours": [9.0, 2.0, 3.0, 4.0],
    "package": [9.0, 8.0, 6.0, 7.0],
    "peak": [9.0, 1.0, 1, 1],
}


@contextmanager
def opened(entry: Entry) -> Iterator[Runner]:
    if entry.model == "ncnn":
        raise Absent("not installed")
    yield Runs(entry, SECONDS[entry.model])


@pytest.fixture
def race() -> Race:
    order.clear()
    return Race(
        {
            "package": Entry("package", model="package", precision="float32"),
            "auto": Entry("ours", model="ours", precision="bfloat16"),
            "ncnn": Entry("ncnn", model="ncnn"),
            "peak bfloat16": Entry("matmul", model="peak", precision="bfloat16"),
        },
        against="package",
        exact={"auto": "package", "ncnn": "package"},
    )


def test_a_ratio_is_of_the_fastest_and_of_the_median_times_without_the_warm_up(race: Race) -> None:
    ratio = run_race(race, 3, opened)["ratios"]
    assert ratio == {"auto against package": {"fastest": 6 / 2, "median": round(7 / 3, 3)}}


def test_a_share_is_of_the_product_of_the_same_type(race: Race) -> None:
    table = run_race(race, 3, opened)["contestants"]
    assert isinstance(table, dict)
    assert table["auto"]["gflop_per_s"] == 6 / 2
    assert table["auto"]["share_of_peak"] == (6 / 2) / (6 / 1)
    assert table["package"]["share_of_peak"] is None  # no product of float32 was measured


def test_who_is_absent_says_why_and_leaves_the_others_to_run(race: Race) -> None:
    facts = run_race(race, 2, opened)
    assert facts["absent"] == {"ncnn": "not installed"}
    assert len(order) == 3 * (1 + 2)


def test_who_dies_on_the_way_is_absent_and_the_others_run_on(race: Race) -> None:
    entries = {**race.entries, "mortal": Entry("ours", model="mortal")}
    facts: Any = run_race(Race(entries, race.against, {"mortal": "package"}), 2, opened)
    assert facts["absent"]["mortal"] == "died"
    assert "mortal" not in facts["contestants"]
    assert order.count("mortal") == 2
    assert order.count("package") == 1 + 2
    assert facts["pictures"] == {}


def test_a_picture_that_can_no_longer_be_made_is_not_compared(
    race: Race, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(_: Runs) -> None:
        raise Absent("died")

    monkeypatch.setattr(Runs, "picture", die)
    facts: Any = run_race(race, 1, opened)
    assert facts["pictures"] == {}
    assert facts["ratios"]


def test_rounds_run_in_turn_and_every_other_one_backwards(race: Race) -> None:
    run_race(race, 2, opened)
    assert order[3:] == ["package", "ours", "peak", "peak", "ours", "package"]


def test_pictures_are_compared_with_the_exact_one(race: Race) -> None:
    pictures = run_race(race, 1, opened)["pictures"]
    assert pictures == {"auto against package": {"psnr_db": 38.59, "largest_levels": 3}}


def test_without_the_package_there_is_no_ratio_but_every_time(race: Race) -> None:
    entries = {name: entry for name, entry in race.entries.items() if name != "package"}
    facts = run_race(Race(entries, against="package"), 1, opened)
    assert facts["ratios"] == {}
    assert isinstance(facts["contestants"], dict)
    assert facts["contestants"]["auto"]["fastest_s"] == 2.0


def test_time_is_measured() -> None:
    class Sleeps:
        label = "sleep"

        def run(self) -> None:
            time.sleep(0.05)

        def gflop(self) -> float:
            return 1.0

        def peak_device_mib(self) -> None:
            return None

    done = run_once(Sleeps())
    assert 0.05 <= done.seconds < 1
