from dataclasses import replace
from pathlib import Path

import pytest

from tests.service.pool.pools import request
from upscaled.pool.cost import SMALL_RESULT_PX, SMALL_WORK_S, CostModel
from upscaled.pool.executor import UpscaleRequest
from upscaled.pool.messages import WorkerReady
from upscaled.upscale.model_choice import Rung
from upscaled_models.registry import ModelSpec
from upscaled_models.store import ModelStore

STORE = ModelStore(Path("/nowhere"))
LARGE, FAST = "realesrgan-x4plus", "upscaled-x4-faithful"
LADDER = [Rung(model=LARGE, tempered_with=FAST, most_px=240_100), Rung(model=FAST)]
HARMED = [Rung(model=LARGE, most_px=240_100, harmed_only=True), Rung(model="upscaled-x2")]
X4PLUS_S, X4_S, X2_S = 1e-4, 1e-6, 2e-6


def make_cost(ladders: dict[int, list[Rung]] | None = None, **seconds_per_px: float) -> CostModel:
    """A cost model to which a worker has reported its ladders, and seconds by model."""
    cost = CostModel(STORE)
    measured = {name.replace("_", "-"): seconds for name, seconds in seconds_per_px.items()}
    cost.assume(make_ready(ladders or {4: LADDER, 2: HARMED}, measured))
    return cost


def make_ready(ladders: dict[int, list[Rung]], seconds_per_px: dict[str, float]) -> WorkerReady:
    return WorkerReady(
        device="fake",
        models={},
        labels={},
        ladders=ladders,
        seconds_per_px=seconds_per_px,
        slots=4,
    )


def make_warm() -> CostModel:
    return make_cost(realesrgan_x4plus=X4PLUS_S, upscaled_x4_faithful=X4_S, upscaled_x2=X2_S)


def test_a_shared_ladder_replaces_that_of_the_worker_and_is_sent_with_the_request() -> None:
    cost = make_warm()
    work = of(250_000)
    assert cost.bind(work) == work
    cost.adopt({4: (Rung(model=FAST),)})
    assert cost.bind(work).ladder == (Rung(model=FAST),)
    assert cost.choices(work) == (FAST, FAST)
    cost.assume(make_ready({4: LADDER}, {}))
    assert cost.ladders == {4: (Rung(model=FAST),)}


def test_a_request_that_brings_a_ladder_is_estimated_and_sent_on_by_it() -> None:
    cost, work = make_warm(), replace(of(10_000), ladder=(Rung(model=FAST),))
    assert cost.choices(work) == (FAST, FAST)
    cost.adopt({4: tuple(LADDER)})
    assert cost.bind(work) == work


def encoded_as(form: str, work: UpscaleRequest) -> UpscaleRequest:
    return replace(work, output=replace(work.output, format=form))


@pytest.mark.parametrize(("form", "s_per_px"), [("WEBP", 8.5e-8), ("AVIF", 1.4e-7), ("JPEG", 0)])
def test_encoding_a_whole_file_counts_for_each_pixel_of_the_result(
    form: str, s_per_px: float
) -> None:
    work = encoded_as(form, of(250_000, model=FAST))
    expected_s = 250_000 * X4_S + 16 * 250_000 * s_per_px
    assert work_s(make_warm(), work) == pytest.approx(expected_s)


def test_measured_encoding_is_learnt_by_format_and_leaves_the_model_as_it_is() -> None:
    cost = make_warm()
    avif = encoded_as("AVIF", of(10_000, model=FAST))
    cost.learn(avif, FAST, 0.01 + 0.32, 0.01 + 0.32, encode_s=0.32)
    assert work_s(cost, of(10_000, model=FAST)) == pytest.approx(0.01)
    assert work_s(cost, avif) == pytest.approx(0.33)
    assert work_s(cost, encoded_as("AVIF", of(10_000, scale=2, model="upscaled-x2"))) == (
        pytest.approx(10_000 * X2_S + 0.08)
    )
    webp = encoded_as("WEBP", of(10_000, model=FAST))
    assert work_s(cost, webp) == pytest.approx(0.01 + 160_000 * 8.5e-8)
    jpeg = of(10_000, model=FAST)
    cost.learn(jpeg, FAST, 0.5, 0.5, encode_s=0.1)  # part of what the model takes, as before
    assert work_s(cost, jpeg) > 0.1


def test_a_flat_image_takes_as_long_to_encode_as_a_full_one() -> None:
    cost = make_warm()
    avif = encoded_as("AVIF", of(10_000, model=FAST))
    cost.learn(avif, FAST, 0.1 + 0.2, 0.0 + 0.2, encode_s=0.2)
    assert 0.2 < work_s(cost, avif) < 0.3
    cost.learn(avif, FAST, None, 0.2, encode_s=0.2)
    assert 0.2 < work_s(cost, avif) < 0.3


def test_a_small_avif_that_takes_long_to_encode_is_not_small() -> None:
    cost = make_cost(realesrgan_x4plus=X4PLUS_S, upscaled_x4_faithful=1e-8)
    work = of(250_000, model=FAST)
    assert cost.estimate(work).is_small
    assert not cost.estimate(encoded_as("AVIF", work)).is_small


def of(
    px: int, *, scale: int = 4, model: str = "", is_deep: bool = False, key_id: int = 1
) -> UpscaleRequest:
    work = request(scale=scale, width_px=px // 100, height_px=100, is_deep=is_deep, key_id=key_id)
    return replace(work, model=model)


def work_s(cost: CostModel, request: UpscaleRequest) -> float:
    return cost.estimate(request).work_s


# Which model it will be, and what that takes.


@pytest.mark.parametrize(
    ("px", "expected_s"),
    [(240_100, 240_100 * X4PLUS_S), (240_200, 240_200 * X4_S), (10_000, 10_000 * X4PLUS_S)],
)
def test_the_first_picture_is_estimated_by_the_model_that_auto_will_choose(
    px: int, expected_s: float
) -> None:
    assert work_s(make_warm(), of(px)) == pytest.approx(expected_s)


def test_a_picture_of_16_bits_has_a_bound_of_its_own() -> None:
    first = Rung(model=LARGE, most_px=240_100, most_deep_px=50_000)
    cost = make_cost(
        {4: [first, Rung(model=FAST)]}, realesrgan_x4plus=X4PLUS_S, upscaled_x4_faithful=X4_S
    )
    for px, is_deep, s_per_px in (
        (50_000, True, X4PLUS_S),
        (50_100, True, X4_S),
        (50_100, False, X4PLUS_S),
    ):
        assert work_s(cost, of(px, is_deep=is_deep)) == pytest.approx(px * s_per_px)


@pytest.mark.parametrize(("model", "s_per_px"), [(LARGE, X4PLUS_S), (FAST, X4_S)])
def test_a_model_that_is_named_counts_whatever_the_size(model: str, s_per_px: float) -> None:
    for px in (10_000, 1_000_000):
        expected_s = px * s_per_px
        assert work_s(make_warm(), of(px, model=model)) == pytest.approx(expected_s)


def test_a_finished_picture_wins_over_what_was_measured_at_a_start() -> None:
    cost = make_warm()
    cost.learn(of(10_000), LARGE, 3)
    cost.assume(make_ready({4: LADDER}, {LARGE: 1e-9}))
    assert work_s(cost, of(10_000)) == pytest.approx(3)


def test_the_time_of_one_model_changes_no_estimate_of_another() -> None:
    cost = make_warm()
    cost.learn(of(10_000), LARGE, 500)
    assert work_s(cost, of(500_000)) == pytest.approx(500_000 * X4_S)


def test_each_scale_of_a_model_is_measured_by_itself() -> None:
    cost = make_warm()
    cost.learn(of(10_000, scale=2, model=FAST), FAST, 1)
    cost.learn(of(10_000, scale=4, model=FAST), FAST, 5)
    assert work_s(cost, of(10_000, scale=2, model=FAST)) == pytest.approx(1)
    assert work_s(cost, of(10_000, scale=4, model=FAST)) == pytest.approx(5)


def test_an_unmeasured_scale_is_estimated_by_the_other_and_by_its_passes() -> None:
    cost = make_cost()
    cost.learn(of(10_000, scale=4, model=LARGE), LARGE, 3)
    assert work_s(cost, of(10_000, scale=2, model=LARGE)) == pytest.approx(3)
    cost.learn(of(10_000, scale=2, model="upscaled-x2"), "upscaled-x2", 1)
    assert work_s(cost, of(10_000, scale=4, model="upscaled-x2")) == pytest.approx(5)
    warm = make_warm()
    assert work_s(warm, of(10_000, scale=4, model="upscaled-x2")) == pytest.approx(
        5 * 10_000 * X2_S
    )


def test_an_unmeasured_model_is_estimated_in_proportion_to_its_arithmetic() -> None:
    """Against multiplications counted layer by layer: 36 and 0.72 MFLOP for a pixel."""
    cost = make_cost(upscaled_x4_faithful=X4_S)
    px = 10_000
    ratio = work_s(cost, of(px, model=LARGE)) / work_s(cost, of(px, model=FAST))
    assert ratio == pytest.approx(36 / 0.72, rel=0.15)
    # x2plus runs at a quarter of the pixels, and twice for scale 4.
    x2plus_s = work_s(cost, of(px, scale=2, model="realesrgan-x2plus"))
    assert x2plus_s == pytest.approx(work_s(cost, of(px, scale=2, model=LARGE)) / 4, rel=0.01)


def test_the_measured_model_with_the_nearest_arithmetic_is_the_reference() -> None:
    cost = make_cost(upscaled_x4_faithful=1.0, realesrgan_x4plus=1.0)
    assert work_s(cost, of(10_000, model="realesrnet-x4plus")) == pytest.approx(10_000, rel=0.01)


def test_an_unknown_model_and_an_unknown_worker_have_some_estimate() -> None:
    assert work_s(make_warm(), of(10_000, model="nonsense")) > 0
    assert work_s(CostModel(STORE), of(10_000)) > 0


def test_a_small_picture_changes_the_estimate_of_a_large_one_little() -> None:
    """Of a small one most is decoding, encoding and overhead."""
    cost = make_warm()
    cost.learn(of(200_000), LARGE, 20)
    for _ in range(5):
        cost.learn(of(100), LARGE, 1)
        cost.learn(of(200_000), LARGE, 20)
    assert work_s(cost, of(200_000)) == pytest.approx(20, rel=0.06)
    for _ in range(30):
        cost.learn(of(100), LARGE, 1)
    assert work_s(cost, of(100)) == pytest.approx(1, rel=0.05)


def test_every_estimate_is_above_zero() -> None:
    cost = make_warm()
    cost.learn(of(100), LARGE, 0.0)
    assert work_s(cost, of(100)) > 0


def test_a_slow_deep_image_makes_no_other_look_slow() -> None:
    cost = make_warm()
    cost.learn(of(10_000, is_deep=True), LARGE, 9.0)
    assert work_s(cost, of(10_000)) == pytest.approx(10_000 * X4PLUS_S)
    assert work_s(cost, of(10_000, is_deep=True)) == pytest.approx(9)


# Harm, which a header does not show.


def test_before_the_first_picture_harm_is_assumed_where_the_model_depends_on_it() -> None:
    cost = make_warm()
    assert work_s(cost, of(10_000, scale=2)) == pytest.approx(10_000 * X4PLUS_S)
    assert work_s(cost, of(250_000, scale=2)) == pytest.approx(250_000 * X2_S)


def test_clean_pictures_in_a_row_bring_the_estimate_to_theirs() -> None:
    cost = make_warm()
    estimates_s = []
    for _ in range(30):
        cost.learn(of(10_000, scale=2), "upscaled-x2", 10_000 * X2_S)
        estimates_s.append(work_s(cost, of(10_000, scale=2)))
    assert estimates_s == sorted(estimates_s, reverse=True)
    assert estimates_s[-1] == pytest.approx(10_000 * X2_S, rel=0.01)
    for _ in range(30):
        cost.learn(of(10_000, scale=2), LARGE, 1.0)
    assert work_s(cost, of(10_000, scale=2)) == pytest.approx(1.0, rel=0.01)


def test_a_key_is_estimated_by_its_own_pictures_and_a_new_one_by_those_of_all() -> None:
    cost = make_warm()
    for _ in range(20):
        cost.learn(of(10_000, scale=2, key_id=1), "upscaled-x2", 10_000 * X2_S)
        cost.learn(of(10_000, scale=2, key_id=2), LARGE, 10_000 * X4PLUS_S)
    clean_s, harmed_s, new_s = (
        work_s(cost, of(10_000, scale=2, key_id=key_id)) for key_id in (1, 2, 3)
    )
    assert clean_s == pytest.approx(10_000 * X2_S, rel=0.1)
    assert harmed_s == pytest.approx(10_000 * X4PLUS_S, rel=0.01)
    assert clean_s < new_s < harmed_s


def test_the_number_of_keys_with_averages_is_bounded() -> None:
    cost = make_warm()
    for key_id in range(3000):
        cost.learn(of(10_000, scale=2, key_id=key_id), "upscaled-x2", 10_000 * X2_S)
    assert len(cost._harmed._by_name) == 1000
    assert work_s(cost, of(10_000, scale=2, key_id=0)) == pytest.approx(10_000 * X2_S, rel=0.01)


def test_a_picture_by_a_named_model_does_not_count_as_harmed_or_clean() -> None:
    cost = make_warm()
    before_s = work_s(cost, of(10_000, scale=2))
    for _ in range(9):
        cost.learn(of(10_000, scale=2, model="upscaled-x2"), "upscaled-x2", 10_000 * X2_S)
    assert work_s(cost, of(10_000, scale=2)) == pytest.approx(before_s)


# Flat and transparent areas, which a header does not show either.

FULL_S = 200_000 * X4PLUS_S


def photo(*, bits_per_px: float = 4, key_id: int = 1) -> UpscaleRequest:
    return replace(of(200_000, key_id=key_id), source_bytes=int(200_000 * bits_per_px / 8))


def test_product_photos_in_a_row_bring_the_estimate_to_what_they_took() -> None:
    cost = make_warm()
    estimates_s = [work_s(cost, photo())]
    for _ in range(12):
        cost.learn(photo(), LARGE, FULL_S, worked_s=0.4 * FULL_S)
        estimates_s.append(work_s(cost, photo()))
    assert estimates_s[0] == pytest.approx(FULL_S)
    assert estimates_s == sorted(estimates_s, reverse=True)
    assert estimates_s[-1] == pytest.approx(0.4 * FULL_S, rel=0.03)


def test_the_key_and_the_length_of_the_file_distinguish_full_photos_from_others() -> None:
    cost = make_warm()
    for _ in range(9):
        cost.learn(photo(bits_per_px=2, key_id=1), LARGE, FULL_S, worked_s=0.1 * FULL_S)
        cost.learn(photo(bits_per_px=2, key_id=2), LARGE, FULL_S, worked_s=FULL_S)
    product_s, full_s, new_s, longer_s = (
        work_s(cost, photo(bits_per_px=bits, key_id=key))
        for bits, key in ((2, 1), (2, 2), (2, 3), (8, 1))
    )
    assert product_s == pytest.approx(0.1 * FULL_S, rel=0.4)
    assert full_s == pytest.approx(FULL_S, rel=0.02)
    assert longer_s == FULL_S
    assert product_s < new_s < full_s


def test_a_nearly_flat_file_is_estimated_low_and_then_by_what_such_files_took() -> None:
    cost = make_warm()
    assert work_s(cost, photo(bits_per_px=0.1)) == pytest.approx(0.1 * FULL_S)
    assert work_s(cost, photo(bits_per_px=0.3)) == pytest.approx(FULL_S)
    for _ in range(20):
        cost.learn(photo(bits_per_px=0.1), LARGE, None, worked_s=0.01)
    assert work_s(cost, photo(bits_per_px=0.1)) == pytest.approx(0.01, rel=0.3)
    for _ in range(20):
        cost.learn(photo(bits_per_px=0.1), LARGE, FULL_S, worked_s=FULL_S)
    assert work_s(cost, photo(bits_per_px=0.1)) == pytest.approx(FULL_S, rel=0.01)


def test_seconds_for_a_pixel_are_those_of_pictures_that_are_full() -> None:
    cost = make_warm()
    for _ in range(9):
        cost.learn(photo(), LARGE, None, worked_s=0.01)
        cost.learn(photo(), LARGE, 2 * FULL_S, worked_s=0.5)
    assert cost.seconds_per_px()[LARGE, 4] == pytest.approx(2 * X4PLUS_S)


def test_an_image_that_may_be_full_is_not_small() -> None:
    cost = make_warm()
    cost.learn(photo(bits_per_px=0.1), LARGE, None, worked_s=1e-6)
    estimate = cost.estimate(photo(bits_per_px=0.1))
    assert estimate.work_s < SMALL_WORK_S * 10
    assert not estimate.is_small


# Small ones, and the list of models.


def test_an_image_is_small_up_to_the_time_of_the_fastest_models_largest_small_one() -> None:
    cost = make_warm()
    limit_px = SMALL_RESULT_PX // 16
    assert limit_px * X4_S > SMALL_WORK_S
    quick_px = int(limit_px * X4_S / X4PLUS_S)
    assert cost.estimate(of(quick_px // 100 * 100)).is_small
    assert not cost.estimate(of(quick_px // 100 * 100 + 100)).is_small
    assert cost.estimate(of(limit_px // 100 * 100, model=FAST)).is_small
    assert not cost.estimate(of(limit_px // 100 * 100 + 100, model=FAST)).is_small


def test_an_image_of_a_quarter_of_a_second_is_small_by_any_model() -> None:
    cost = make_cost(realesrgan_x4plus=1e-5, upscaled_x4_faithful=1e-8)
    assert cost.estimate(of(25_000)).is_small
    assert not cost.estimate(of(25_100)).is_small


def test_with_one_model_the_pixels_of_the_result_alone_decide() -> None:
    cost = make_cost({4: [Rung(model=LARGE)]}, realesrgan_x4plus=X4PLUS_S)
    limit_px = SMALL_RESULT_PX // 16 // 100 * 100
    for is_deep, px in ((False, limit_px), (True, limit_px // 200 * 100)):
        assert cost.estimate(of(px, is_deep=is_deep)).is_small
        assert not cost.estimate(of(px + 100, is_deep=is_deep)).is_small


def test_seconds_are_known_where_a_worker_or_a_picture_was_measured() -> None:
    cost = make_cost(upscaled_x4_faithful=X4_S, upscaled_x2=X2_S)
    cost.learn(of(10_000), LARGE, 3)
    cost.learn(of(10_000, model=FAST), FAST, 3)
    assert cost.seconds_per_px() == {
        (FAST, 2): X4_S,
        (FAST, 4): 3e-4,
        ("upscaled-x2", 2): X2_S,
        ("upscaled-x2", 4): 5 * X2_S,
        (LARGE, 4): 3e-4,
    }


def test_a_spec_is_looked_up_once() -> None:
    looked_up = []

    class Counting(ModelStore):
        def find(self, name: str) -> ModelSpec:
            looked_up.append(name)
            return super().find(name)

    cost = CostModel(Counting(Path("/nowhere")))
    for _ in range(5):
        cost.estimate(of(10_000, model=FAST))
    assert looked_up == [FAST]
