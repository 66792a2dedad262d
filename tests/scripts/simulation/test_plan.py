from pathlib import Path

import numpy as np
import pytest

from scripts.simulation.command import EXAMPLE
from scripts.simulation.plan import DEFAULT_MIX, BadPlan, Costs, draw_mix, read_document, read_plan

WISH = {"images_per_hour": 3600, "p95_s": 2}


def test_the_example_is_a_plan(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(EXAMPLE)
    document = read_document(tmp_path / "plan.toml")
    plan = read_plan(document)
    assert plan.images_per_hour == 60_000
    assert plan.machine.slots == 8
    pictures = draw_mix(document["mix"], plan.seed, bytes_per_px=0.2)
    assert 64**2 <= pictures.px.min() < pictures.px.max() <= 1500**2


@pytest.mark.parametrize(
    "wrong",
    [
        {"images_an_hour": 3},
        {"machine": {"gpus": 3}},
        {"machine": {"workers": 0}},
        {"machine": {"slots": 1.5}},
        {"machine": {"slots": True}},
        {"machine": 3},
        {"p95_s": 0},
        {"p95_s": "fast"},
        {"url_share": 1.1},
        {"seed": -1},
        {"images_per_hour": -1},
        {"spread": "by luck"},
    ],
)
def test_a_plan_that_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(BadPlan):
        read_plan(WISH | wrong)


def test_a_plan_without_a_load_is_refused() -> None:
    with pytest.raises(BadPlan, match="images_per_hour"):
        read_plan({"p95_s": 2})


def test_a_file_that_is_no_toml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text("images: 3")
    with pytest.raises(BadPlan, match=r"plan\.toml"):
        read_document(tmp_path / "plan.toml")


@pytest.mark.parametrize(
    "mix",
    [
        [{"share": 1}],
        [{"share": 0, "side_px": [64, 65]}],
        [{"share": 1, "side_px": [64]}],
        [{"share": 1, "side_px": "wide"}],
        [],
    ],
)
def test_a_mix_that_cannot_be_is_refused(mix: list[dict[str, object]]) -> None:
    with pytest.raises(BadPlan, match="mix"):
        draw_mix(mix, 1, bytes_per_px=0.2)


def test_a_mix_is_drawn_by_its_shares() -> None:
    pictures = draw_mix(DEFAULT_MIX, 1, bytes_per_px=0.2)
    small, large = np.mean(pictures.px <= 256**2), np.mean(pictures.px == 1500**2)
    assert small == pytest.approx(0.5, abs=0.02)
    assert large == pytest.approx(0.03, abs=0.01)
    np.testing.assert_allclose(pictures.result_bytes, pictures.px * 16 * 0.2)


def test_work_is_on_straight_lines_between_measured_sizes_and_beyond() -> None:
    costs = Costs([(200.0, 3.0), (100.0, 1.0)], (0.0, 0.0), 0.2)
    work_s = costs.work_s(np.array([50.0, 100.0, 150.0, 200.0, 400.0]))
    assert work_s.tolist() == [1.0, 1.0, 2.0, 3.0, 6.0]
