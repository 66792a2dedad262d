from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from scripts.benchmark.contestant import Absent, Entry, Run, Runner
from scripts.benchmark.race import run_race

order: list[str] = []


class Runs(Runner):
    """Takes part with the given seconds, one after another; the first is the warm-up's."""

    gflop = 6.0

    def __init__(self, entry: Entry, seconds: list[float]) -> None:
        self.label = f"it {entry.precision}"
        self._name = entry.model
        self._seconds = iter(seconds)

    def run_once(self) -> Run:
        order.append(self._name)
        if self._name == "mortal" and order.count("mortal") == 2:
            raise Absent("died")
        level = 100 if self._name == "ours" else 103
        return Run(next(self._seconds), picture=np.full((2, 2, 3), level, np.uint8))


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
def entries() -> dict[str, Entry]:
    order.clear()
    return {
        "package": Entry("others:Package", model="package", precision="float32"),
        "auto": Entry("ours:Ours", model="ours", precision="bfloat16", truth="package"),
        "ncnn": Entry("others:Ncnn", model="ncnn", truth="package"),
        "peak bfloat16": Entry("others:Matmul", model="peak", precision="bfloat16"),
    }


def table_of(entries: dict[str, Entry], rounds: int) -> Any:
    return run_race(entries, rounds, opened)["contestants"]


def test_speed_is_compared_by_the_fastest_times_without_the_warm_up(
    entries: dict[str, Entry],
) -> None:
    table = table_of(entries, 3)
    assert table["auto"]["speed_up"] == 6 / 2
    assert (table["auto"]["fastest_s"], table["auto"]["median_s"]) == (2, 3)
    assert "speed_up" not in table["package"]


def test_a_share_is_of_the_product_of_the_same_type(entries: dict[str, Entry]) -> None:
    table = table_of(entries, 3)
    assert table["auto"]["gflop_per_s"] == 6 / 2
    assert table["auto"]["share_of_peak"] == (6 / 2) / (6 / 1)
    assert "share_of_peak" not in table["package"]  # no product of float32 was measured


def test_an_absent_contestant_has_its_reason_and_the_others_run(entries: dict[str, Entry]) -> None:
    assert run_race(entries, 2, opened)["absent"] == {"ncnn": "not installed"}
    assert len(order) == 3 * (1 + 2)


def test_a_contestant_that_dies_on_the_way_is_absent_and_the_others_run_on(
    entries: dict[str, Entry],
) -> None:
    entries["mortal"] = Entry("ours:Ours", model="mortal", truth="package")
    figures: Any = run_race(entries, 2, opened)
    assert figures["absent"]["mortal"] == "died"
    assert "mortal" not in figures["contestants"]
    assert order.count("mortal") == 2
    assert order.count("package") == 1 + 2


def test_rounds_run_in_turn_and_every_other_one_backwards(entries: dict[str, Entry]) -> None:
    run_race(entries, 2, opened)
    assert order[3:] == ["package", "ours", "peak", "peak", "ours", "package"]


def test_a_picture_is_compared_with_its_exact_one(entries: dict[str, Entry]) -> None:
    row = table_of(entries, 1)["auto"]
    assert (row["psnr_db"], row["largest_levels"]) == (38.59, 3)


def test_without_the_package_there_is_no_comparison_but_every_time(
    entries: dict[str, Entry],
) -> None:
    del entries["package"]
    row = table_of(entries, 1)["auto"]
    assert "speed_up" not in row
    assert row["fastest_s"] == 2.0
