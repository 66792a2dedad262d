from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from scripts.benchmark import race
from scripts.benchmark.contestant import Absent, Entry, Run, Runner
from scripts.benchmark.effort import QUICK
from scripts.benchmark.race import (
    PRECISIONS,
    enter,
    enter_products,
    measure_kernel,
    measure_sizes,
    run_race,
)
from scripts.benchmark.weights import add_random_compact

order: list[str] = []


class Runs(Runner):
    """Takes part with the given seconds, one after another; the first is the warm-up's."""

    gflop = 6.0

    def __init__(self, entry: Entry, seconds: list[float]) -> None:
        self.runs = []
        self.label = f"it {entry.precision}"
        self._name = entry.model
        self._seconds = iter(seconds)

    def run_once(self) -> None:
        order.append(self._name)
        if self._name == "mortal" and order.count("mortal") == 2:
            raise Absent("died")
        level = 100 if self._name == "ours" else 103
        self.runs.append(Run(next(self._seconds), picture=np.full((2, 2, 3), level, np.uint8)))


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


def test_a_contestant_that_crashes_during_the_race_is_left_out_and_the_others_continue(
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


def test_ratios_and_shares_follow_from_the_reported_times(tmp_path: Path) -> None:
    weights = add_random_compact(tmp_path, num_conv=2, num_feat=8)
    ours = Entry("ours:Ours", str(tmp_path), weights.model, height_px=32, width_px=32)
    ours = replace(ours, is_tuned=False, is_apart=False)
    own = enter(ours, "", is_random=True)
    entries = {"package": own["exact"], "auto": own["auto"]}
    figures: Any = run_race(entries | enter_products("cpu", is_whole=False), 2)
    table = figures["contestants"]
    by_time = table["package"]["fastest_s"] / table["auto"]["fastest_s"]
    assert table["auto"]["speed_up"] == pytest.approx(by_time, 0.01)
    exact = table["package"]
    share = exact["gflop_per_s"] / table["peak float32"]["gflop_per_s"]
    assert exact["share_of_peak"] == pytest.approx(share, 0.01)
    assert exact["gflop_per_s"] == pytest.approx(exact["gflop"] / exact["fastest_s"], 0.05)


@pytest.mark.slow
def test_every_contestant_runs_one_network_beside_the_default_model(tmp_path: Path) -> None:
    report: Any = measure_kernel(tmp_path, QUICK, "cpu")
    (compact,) = report.values()
    assert compact["weights"] == "random"
    table, absent = compact["contestants"], compact["absent"]
    assert table.keys() >= {"exact", "auto", *(f"default {name}" for name in PRECISIONS)}
    assert {"package", "ncnn"} <= table.keys() | absent.keys()
    assert min(row["gflop"] for row in table.values()) > 0
    assert "psnr_db" not in table["exact"]
    assert "largest_levels" in table["default fast"]


def test_products_of_every_type_that_the_processor_has_are_measured() -> None:
    figures: Any = run_race(enter_products("cpu", is_whole=False), rounds=2)
    assert {"peak float32", "peak int8"} <= figures["contestants"].keys() | figures["absent"].keys()
    assert figures["contestants"]["peak float32"]["gflop_per_s"] > 0


@pytest.mark.slow
@pytest.mark.skipif(
    not (find_spec("pnnx") and find_spec("realesrgan")),
    reason="tests/reference/requirements.lock is not installed",
)
def test_sizes_are_measured_for_each_contestant_in_processor_time(tmp_path: Path) -> None:
    (curves,) = cast(Any, measure_sizes(tmp_path, QUICK)).values()
    assert list(curves) == ["upscaled", "ncnn", "package"], "in the order of the plot's colours"
    assert all(curve.keys() == {"64"} and curve["64"] > 0 for curve in curves.values())


def test_sizes_are_not_measured_without_a_contestant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(race, "OTHERS", {"upscaled": "effort:NotHere"})
    with pytest.raises(Absent, match=r"upscaled: .*NotHere"):
        measure_sizes(tmp_path, QUICK)
