"""scripts/capacity: from a plan, a log or a benchmark to tables and one JSON document."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scripts.simulation.command import EXAMPLE, main
from tests.scripts.simulation.test_access_log import line

pytestmark = pytest.mark.usefixtures("short_simulations")

ROOT = Path(__file__).resolve().parents[3]
SECONDS = "[seconds]\n64 = 0.1\n1500 = 4\n"


def last_line(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return document


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    file = tmp_path / "plan.toml"
    file.write_text("images_per_hour = 1000\np95_s = 20\n" + SECONDS)
    return file


def test_the_script_prints_an_example_and_accepts_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UPSCALED_DATA_DIR", str(tmp_path))
    command = [sys.executable, str(ROOT / "scripts" / "capacity"), "--example"]
    printed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    (tmp_path / "plan.toml").write_text(printed.stdout)
    main(["--plan", str(tmp_path / "plan.toml")])
    assert last_line(capsys)["machines"] >= 1


def test_a_flag_overrides_the_plan(plan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--plan", str(plan), "--images-per-hour", "5000", "--p95-s", "30"])
    document = last_line(capsys)
    assert (document["images_per_hour"], document["wanted_p95_s"]) == (5000, 30)


def test_a_log_gives_the_mix_and_the_load(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "log").write_text("\n".join(line(at) for at in range(0, 3601, 9)))
    (tmp_path / "plan.toml").write_text("p95_s = 20\n" + SECONDS)
    main(["--plan", str(tmp_path / "plan.toml"), "--log", str(tmp_path / "log")])
    document = last_line(capsys)
    assert document["images_per_hour"] == 400
    assert document["mean_megapixels"] == pytest.approx(64 * 32 / 1e6, rel=1e-3)


def test_a_benchmark_gives_the_seconds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = {"http": {"alone": {"64": {"p50_s": 0.1}, "1500": {"p50_s": 4}}}}
    (tmp_path / "bench").write_text("| what | figure |\n" + json.dumps(report))
    main(["--bench", str(tmp_path / "bench"), "--images-per-hour", "1000", "--p95-s", "20"])
    assert last_line(capsys)["seconds_by_px"] == [[64**2, 0.1], [1500**2, 4]]


@pytest.mark.parametrize(
    "text",
    [
        "p95_s = 2\n" + SECONDS,
        "images_per_hour = 1000\np95_s = 20\n[seconds]\nwide = 3\n",
        "images_per_hour = 1000\np95_s = 20\n[seconds]\n",
        "images_per_hour = 1000\np95_s = 0.2\n" + SECONDS,
    ],
)
def test_an_impossible_plan_ends_the_script_with_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "plan.toml").write_text(text)
    with pytest.raises(SystemExit, match=r"^capacity: [^\n]+$"):
        main(["--plan", str(tmp_path / "plan.toml")])


def test_the_same_plan_gives_the_same_figures(
    plan: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    documents = []
    for _ in range(2):
        main(["--plan", str(plan)])
        documents.append(last_line(capsys))
    assert documents[0] == documents[1]


def test_the_example_has_every_key_of_a_plan() -> None:
    assert {"images_per_hour", "p95_s", "spread", "[machine]", "[seconds]", "[[mix]]"} <= {
        word for row in EXAMPLE.splitlines() for word in row.split(" ")
    }
