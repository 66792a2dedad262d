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
def test_a_picture_goes_to_the_first_rung_that_accepts_it(
    px: int, is_harmed: bool, model: str
) -> None:
    assert choose_rung(LADDER, px, is_harmed=is_harmed).model == model


def test_a_picture_that_no_rung_accepts_goes_to_the_last() -> None:
    assert choose_rung(LADDER[:1], 10**9, is_harmed=False).model == "best"
    with pytest.raises(ValueError, match="needs a rung"):
        choose_rung([], 1, is_harmed=False)
