import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scripts.benchmark.child import in_child
from scripts.benchmark.command import PARTS, measure
from scripts.benchmark.contestant import Absent, Entry
from scripts.benchmark.effort import QUICK
from scripts.benchmark.kernel import PRECISIONS, make_race
from scripts.benchmark.race import Race, open_here, run_race
from scripts.benchmark.report import to_table
from scripts.benchmark.seams import measure_one
from scripts.benchmark.weights import add_lively_rrdb, add_small_compact

ROOT = Path(__file__).resolve().parents[2]
OURS = {"exact", "auto", *(f"default {name}" for name in PRECISIONS)}


def assert_is_whole(report: dict[str, Any], parts: tuple[str, ...]) -> None:
    """Every part is there, and what must have been measured is above 0."""
    assert report["machine"]["cores"] >= 1
    assert report["machine"]["versions"]["torch"]
    assert set(parts) <= report.keys()
    if "kernel" in parts:
        compact, rrdb = report["kernel"].values()
        assert compact["contestants"].keys() >= OURS
        assert rrdb["contestants"].keys() >= {"exact", "auto"}
        assert {"package", "ncnn"} <= rrdb["contestants"].keys() | rrdb["absent"].keys()
        for facts in (*compact["contestants"].values(), *rrdb["contestants"].values()):
            assert 0 < facts["fastest_s"] <= facts["median_s"]
            assert facts["gflop"] > 0
    if "http" in parts:
        assert report["http"]["alone"]["64"]["p95_s"] >= report["http"]["alone"]["64"]["p50_s"] > 0
        assert 0 < report["http"]["alone"]["64"]["share_outside_network"] < 1
        assert report["http"]["beside_large"]["ratio"] > 0
        assert report["http"]["small_images"]["ratio"] > 0
    if "memory" in parts:
        assert report["memory"]["peak_rss_mib"] >= report["memory"]["peak_pss_mib"] > 100
    if "batch" in parts:
        assert report["batch"]["windows"] == report["batch"]["images"] == 4
        assert report["batch"]["ratio"] > 0
        assert report["batch"]["cpu_ratio"] > 0
    assert to_table(report).count("\n| ") > len(parts)


@pytest.mark.slow
def test_what_needs_no_server_is_measured_whole(tmp_path: Path) -> None:
    parts = ("kernel", "peak", "seams", "batch")
    report: dict[str, Any] = measure(tmp_path, parts, QUICK, "cpu", None)
    assert_is_whole(json.loads(json.dumps(report)), parts)
    for facts in report["seams"].values():
        assert facts["windows"] > 1
        assert facts["largest_levels"] == 0, "these halos are as wide as the network sees"


def test_ratios_and_shares_follow_from_the_reported_times(tmp_path: Path) -> None:
    race = make_race(tmp_path, add_small_compact(tmp_path), 32, "cpu", None, is_tiny=True)
    names = ("exact", "auto", "peak float32")
    race = Race({name: race.entries[name] for name in names}, against="exact")
    facts: Any = run_race(race, 2, open_here)
    table = facts["contestants"]
    by_time = table["exact"]["fastest_s"] / table["auto"]["fastest_s"]
    assert facts["ratios"]["auto against exact"]["fastest"] == pytest.approx(by_time, 0.01)
    share = table["exact"]["gflop_per_s"] / table["peak float32"]["gflop_per_s"]
    assert table["exact"]["share_of_peak"] == pytest.approx(share, 0.01)
    assert table["exact"]["gflop_per_s"] == pytest.approx(
        table["exact"]["gflop"] / table["exact"]["fastest_s"], 0.05
    )


@pytest.mark.slow
def test_a_halo_that_is_too_narrow_is_seen_in_the_seams(tmp_path: Path) -> None:
    """The weights are alive enough: with less than the network sees, results differ."""
    weights = add_lively_rrdb(tmp_path, num_block=3)
    entry = Entry("ours", str(tmp_path), weights.model, "exact", "cpu", 64, 136, is_tuned=False)
    facts = measure_one(entry, is_tiny=True)
    assert int(str(facts["halo_px"])) < int(str(facts["radius_px"]))
    assert float(str(facts["mean_levels"])) > 0


def test_a_contestant_in_a_process_of_its_own_runs_and_shows_its_picture(tmp_path: Path) -> None:
    weights = add_small_compact(tmp_path)
    entry = Entry(
        "ours", str(tmp_path), weights.model, "exact", height_px=24, width_px=20, is_tuned=False
    )
    with in_child(entry) as child:
        assert child.label == "torch float32"
        done = child.run_once()
        picture = child.picture()
    assert done.seconds > 0
    assert done.gflop > 0
    assert picture is not None
    assert picture.shape == (96, 80, 3)


def test_a_contestant_that_dies_is_absent_with_its_last_words() -> None:
    unknown = Entry.from_json('{"kind": "unknown"}')
    with pytest.raises(Absent, match="KeyError: 'unknown'"), in_child(unknown):
        pass


@pytest.mark.slow
def test_the_command_measures_everything_and_ends_with_one_document(tmp_path: Path) -> None:
    answer = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "bench"), "--quick"],
        cwd=tmp_path,
        env=os.environ | {"UPSCALED_DATA_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    report = json.loads(answer.stdout.splitlines()[-1])
    assert report["is_quick"]
    assert_is_whole(report, PARTS)
