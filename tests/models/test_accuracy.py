"""The limits of the accuracy check, on both sides."""

import numpy as np
import pytest

from upscaled_models.accuracy import FLOAT_BARS, RECORDED_BAR, Accuracy, measure_accuracy
from upscaled_models.backends.base import Window

RAMP = np.linspace(0, 255, 3 * 32 * 32).reshape(32, 32, 3).astype(np.uint8)


def flat(level: int) -> Window:
    return np.full((8, 8, 3), level, np.uint8)


def measure_flat(source: int, expected: int, got: int) -> Accuracy:
    return measure_accuracy(
        [RAMP], [RAMP], flats=[flat(source)], expected_flats=[flat(expected)], got_flats=[flat(got)]
    )


@pytest.mark.parametrize(("got", "fault"), [(44, ""), (46, ""), (47, "its mean colour is off")])
def test_a_flat_colour_between_two_levels_may_be_rounded_to_either(got: int, fault: str) -> None:
    found = measure_flat(source=60, expected=45, got=got).find_fault(FLOAT_BARS["auto"])
    assert found.startswith(fault)
    assert bool(found) == bool(fault)


def test_a_flat_colour_that_float32_keeps_may_not_move_at_all() -> None:
    moved = measure_flat(source=45, expected=45, got=46)
    assert "flat colours" in moved.find_fault(FLOAT_BARS["fast"])
    assert moved.find_fault(RECORDED_BAR) == ""


def test_a_proof_without_flat_colours_is_marked() -> None:
    proof = measure_accuracy([RAMP], [RAMP + (RAMP < 9)])
    assert proof.find_fault(RECORDED_BAR) == ""
    assert "in one small picture, beside the proof that came with its file" in str(proof)


@pytest.mark.parametrize(("share", "is_wrong"), [(0.45, False), (0.55, True)])
def test_a_picture_may_be_half_a_level_too_dark_and_no_more(share: float, is_wrong: bool) -> None:
    """Rounding averages out in it: what is left is an error."""
    darker = RAMP.astype(int) - (np.random.default_rng(1).random(RAMP.shape) < share)
    got = [darker.clip(0).astype(np.uint8)]
    grey = [flat(9)]
    proof = measure_accuracy([RAMP], got, flats=grey, expected_flats=grey, got_flats=grey)
    assert bool(proof.find_fault(FLOAT_BARS["auto"])) == is_wrong


@pytest.mark.parametrize(("levels", "is_wrong"), [(3, False), (5, True)])
def test_a_network_that_invents_texture_may_be_four_levels_too_dark(
    levels: int, is_wrong: bool
) -> None:
    """Colour correction, which follows, sets that right."""
    bright = RAMP // 2 + 100
    proof = measure_accuracy([bright], [bright - levels])
    assert bool(proof.find_fault(RECORDED_BAR)) == is_wrong
    assert proof.find_fault(FLOAT_BARS["auto"]) != ""
