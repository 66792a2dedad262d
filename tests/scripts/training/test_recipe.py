"""Recipes: the course of the learning rate, and overrides by name."""

import pytest

from scripts.training.recipe import Recipe, override

RECIPE = Recipe(4, steps=1000, rate=1e-3, warmup_steps=10, cooldown_share=0.4)


def test_the_learning_rate_rises_stays_and_falls_to_a_hundredth() -> None:
    assert RECIPE.rate_at(0) == pytest.approx(1e-4)
    assert RECIPE.rate_at(9) == RECIPE.rate_at(599) == pytest.approx(1e-3)
    assert 1e-5 < RECIPE.rate_at(800) < RECIPE.rate_at(601) < 1e-3
    assert RECIPE.rate_at(1000) == RECIPE.rate_at(5000) == pytest.approx(1e-5)


def test_an_override_keeps_the_type_of_the_number() -> None:
    changed = override(RECIPE, ["steps=7", "rate=0.5"])
    assert (changed.steps, changed.rate, changed.scale) == (7, 0.5, 4)


@pytest.mark.parametrize("assignment", ["stepz=7", "=3", "steps=many"])
def test_a_wrong_override_is_refused(assignment: str) -> None:
    with pytest.raises(ValueError, match=r"stepz|''|many"):
        override(RECIPE, [assignment])
