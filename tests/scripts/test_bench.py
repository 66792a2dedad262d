import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from scripts.benchmark.command import PARTS, measure
from scripts.benchmark.contestant import Absent, Entry, open_contestant
from scripts.benchmark.effort import QUICK
from scripts.benchmark.race import PRECISIONS, enter, enter_products, run_race
from scripts.benchmark.report import to_table
from scripts.benchmark.weights import add_random_compact

ROOT = Path(__file__).resolve().parents[2]
OURS = {"exact", "auto", *(f"default {name}" for name in PRECISIONS)}


def assert_is_whole(report: dict[str, Any], parts: tuple[str, ...]) -> None:
    """Assert that every part is there, and that measured figures are above 0."""
    assert report["machine"]["cores"] >= 1
    assert report["machine"]["versions"]["torch"]
    assert set(parts) <= report.keys()
    if "kernel" in parts:
        (compact,) = report["kernel"].values()
        assert compact["contestants"].keys() >= OURS
        assert {"package", "ncnn"} <= compact["contestants"].keys() | compact["absent"].keys()
        for figures in compact["contestants"].values():
            assert 0 < figures["fastest_s"] <= figures["median_s"]
            assert figures["gflop"] > 0
    if "http" in parts:
        assert report["http"]["alone"]["64"]["p95_s"] >= report["http"]["alone"]["64"]["p50_s"] > 0
        assert 0 < report["http"]["alone"]["64"]["share_outside_network"] < 1
        assert report["http"]["beside_large"]["ratio"] > 0
        assert report["http"]["small_images"]["ratio"] > 0
        assert min(report["http"]["content"]["ratios"].values()) > 0
    if "cold" in parts:
        assert min(report["cold"]["first_s"], report["cold"]["later_s"]) > 0
    if "memory" in parts:
        assert report["memory"]["peak_rss_mib"] >= report["memory"]["peak_pss_mib"] > 100
    if "batch" in parts:
        assert report["batch"]["images"] == 4
        assert report["batch"]["ratio"] > 0
        assert report["batch"]["cpu_ratio"] > 0
    if "avatars" in parts:
        assert min(row["ratio"] for row in report["avatars"]["by_engine"].values()) > 0
    if "divided" in parts and report["machine"]["cores"] > 1:
        assert min(report["divided"]["ratios"].values()) > 0
        assert report["divided"]["divided"]["small_images"] > 0
    assert to_table(report).count("\n| ") > len(parts)


@pytest.mark.slow
def test_the_parts_without_a_server_are_measured_whole(tmp_path: Path) -> None:
    parts = ("kernel", "peak", "seams", "batch", "avatars")
    report: dict[str, Any] = measure(tmp_path, parts, QUICK, "cpu", None)
    assert_is_whole(json.loads(json.dumps(report)), parts)
    for figures in report["seams"].values():
        assert figures["tiles"] > 1
        assert figures["largest_levels"] == 0, "these halos are as wide as the network sees"


def test_ratios_and_shares_follow_from_the_reported_times(tmp_path: Path) -> None:
    weights = add_random_compact(tmp_path, num_conv=2, num_feat=8)
    own = enter(tmp_path, weights, 32, "cpu", "", is_tuned=False)
    entries = {"package": own["exact"], "auto": own["auto"]} | enter_products("cpu", QUICK)
    figures: Any = run_race(entries, 2, partial(open_contestant, is_apart=False))
    table = figures["contestants"]
    by_time = table["package"]["fastest_s"] / table["auto"]["fastest_s"]
    assert table["auto"]["speed_up"] == pytest.approx(by_time, 0.01)
    exact = table["package"]
    share = exact["gflop_per_s"] / table["peak float32"]["gflop_per_s"]
    assert exact["share_of_peak"] == pytest.approx(share, 0.01)
    assert exact["gflop_per_s"] == pytest.approx(exact["gflop"] / exact["fastest_s"], 0.05)


@pytest.mark.slow
def test_a_contestant_in_a_process_of_its_own_runs_and_shows_its_picture(tmp_path: Path) -> None:
    weights = add_random_compact(tmp_path, num_conv=2, num_feat=8)
    entry = Entry(
        "ours:Ours",
        str(tmp_path),
        weights.model,
        "exact",
        height_px=24,
        width_px=20,
        is_tuned=False,
    )
    with open_contestant(entry) as runner:
        assert runner.label == "torch float32"
        assert runner.gflop > 0
        run = runner.run_once()
    assert run.seconds > 0
    assert run.picture is not None
    assert run.picture.shape == (96, 80, 3)


def test_a_contestant_that_dies_is_absent_and_says_why() -> None:
    unknown = Entry("unknown:Unknown")  # type: ignore[arg-type]
    with pytest.raises(Absent, match="ModuleNotFoundError"), open_contestant(unknown):
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
