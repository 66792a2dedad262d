"""Strengths of denoising as names of models."""

import pytest

from upscaled_models.denoise import name_strength, round_strength, split_strength


@pytest.mark.parametrize(
    ("strength", "rounded"),
    [(0, 0), (0.049, 0), (0.05, 0.1), (0.25, 0.3), (0.4, 0.4), (0.949, 0.9), (0.95, 1), (1, 1)],
)
def test_a_strength_is_rounded_to_the_nearest_tenth(strength: float, rounded: float) -> None:
    assert round_strength(strength) == rounded


def test_a_name_gives_its_model_and_strength_again() -> None:
    names = [name_strength("some-model", tenths / 10) for tenths in range(11)]
    assert (names[0], names[4], names[10]) == ("some-model@0.0", "some-model@0.4", "some-model@1.0")
    for tenths, name in enumerate(names):
        assert split_strength(name) == ("some-model", tenths / 10)
    assert name_strength("some-model@0.4", 0.9) == "some-model@0.9"


@pytest.mark.parametrize("name", ["a", "", "a@", "a@2", "a@0.45", "a@1.1", "@0.4", "a@0.4@0.5"])
def test_no_other_name_gives_a_strength(name: str) -> None:
    assert split_strength(name) == (name, None)


@pytest.mark.parametrize("strength", [-0.001, 1.001, float("nan")])
def test_a_strength_out_of_range_has_no_name(strength: float) -> None:
    with pytest.raises(ValueError, match="strength"):
        name_strength("a", strength)
