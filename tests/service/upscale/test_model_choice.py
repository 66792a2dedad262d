import pytest

from upscaled.upscale.model_choice import Rung, choose_rung

LADDER = [
    Rung(model="best", tempered_with="faithful", most_px=240_000, harmed_only=True),
    Rung(model="faithful"),
]


@pytest.mark.parametrize(
    ("px", "is_harmed", "model"),
    [
        (240_000, True, "best"),
        (240_001, True, "faithful"),
        (240_000, False, "faithful"),
        (1, True, "best"),
    ],
)
def test_the_first_rung_that_accepts_a_picture_is_chosen(
    px: int, is_harmed: bool, model: str
) -> None:
    assert choose_rung(LADDER, px, is_harmed=is_harmed).model == model


def test_the_last_rung_is_chosen_for_a_picture_that_none_accepts() -> None:
    assert choose_rung(LADDER[:1], 10**9, is_harmed=False).model == "best"
    with pytest.raises(ValueError, match="needs a rung"):
        choose_rung([], 1, is_harmed=False)
