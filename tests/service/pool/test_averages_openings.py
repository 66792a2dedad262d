"""Estimates of the time that a worker takes to open a strength of denoising."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.service.pool.pools import request
from upscaled.pool.averages import Openings
from upscaled.pool.cost import CostModel
from upscaled_models.registry import MAX_STRENGTHS
from upscaled_models.store import ModelStore

NAMES = [f"realesr-general-x4v3@0.{tenths}" for tenths in range(MAX_STRENGTHS + 1)]


def test_only_a_strength_that_is_not_in_memory_takes_time() -> None:
    openings = Openings()
    assert openings.expect_s("realesr-general-x4v3") == 0
    first_s = openings.expect_s(NAMES[0])
    assert first_s > 0
    openings.note(NAMES[0], 10.0)
    assert openings.expect_s(NAMES[0]) == 0
    assert first_s < openings.expect_s(NAMES[1]) < 10
    for name in NAMES[1:]:
        openings.note(name, 10.0)
    assert openings.expect_s(NAMES[0]) > 0, "others are in memory in its stead"
    assert [openings.expect_s(name) for name in NAMES[1:]] == [0] * MAX_STRENGTHS


def test_what_is_in_memory_is_not_opened_again_and_what_was_used_last_stays() -> None:
    openings = Openings()
    openings.note(NAMES[0], 10.0)
    mean_s = openings.expect_s(NAMES[-1])
    openings.note(NAMES[0], 0.0)
    assert openings.expect_s(NAMES[-1]) == mean_s
    for name in [*NAMES[1:-1], NAMES[0], NAMES[-1]]:
        openings.note(name, 10.0)
    assert openings.expect_s(NAMES[0]) == 0
    assert openings.expect_s(NAMES[1]) > 0


def test_the_opening_counts_in_the_estimate_of_an_image() -> None:
    cost = CostModel(ModelStore(Path("/nowhere")))
    work = replace(request(scale=4), model=NAMES[0])
    before_s = cost.estimate(work).work_s
    plain_s = cost.estimate(replace(work, model="realesr-general-x4v3")).work_s
    assert before_s - plain_s == pytest.approx(Openings().expect_s(NAMES[0]))
    cost.learn(work, NAMES[0], plain_s, opening_s=3.0)
    assert cost.estimate(work).work_s == pytest.approx(plain_s)
