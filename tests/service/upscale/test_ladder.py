from dataclasses import replace
from pathlib import Path

import pytest

from upscaled.config import Settings, SettingsError, load_settings
from upscaled.upscale.ladder import LARGEST_SIDE_PX, largest_px, name_rung, plan_ladder
from upscaled.upscale.model_choice import Rung, choose_rung
from upscaled.upscale.speed import Speed
from upscaled.upscale.tiles import Tiling
from upscaled_models.registry import official_models
from upscaled_models.store import ModelStore

BY_NAME = {spec.name: spec for spec in official_models()}
X4PLUS, X2PLUS = "realesrgan-x4plus", "realesrgan-x2plus"
FAST, SLOW = 1e-9, 4e-5


def settings_with(folder: Path, *names: str, **more: object) -> Settings:
    """Settings of a data folder in which these models are here; their content is never read."""
    settings = load_settings({}, data_dir=folder, device="cpu", **more)
    store = ModelStore(settings.models_dir)
    for name in names:
        path = store.target(store.find(name))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return settings


def speed(s_per_px: float, deep_s_per_px: float | None = None) -> Speed:
    return Speed(
        s_per_px=s_per_px,
        deep_s_per_px=deep_s_per_px or 3 * s_per_px,
        window_px=256,
        shape_step_px=32,
    )


def build(settings: Settings, scale: int, speed: Speed | None) -> tuple[Rung, ...]:
    return plan_ladder(settings, scale).build(speed)


@pytest.mark.parametrize(
    ("present", "scale", "models"),
    [
        ([], 2, ["upscaled-x2"]),
        ([], 4, ["upscaled-x4"]),
        (["realesr-general-x4v3", "realesr-animevideov3"], 4, ["upscaled-x4"]),
        ([X4PLUS], 4, [X4PLUS, "upscaled-x4"]),
        ([X4PLUS], 2, [X4PLUS, "upscaled-x2"]),
        ([X4PLUS, X2PLUS], 2, [X2PLUS, "upscaled-x2"]),
        ([X2PLUS], 4, ["upscaled-x4"]),
    ],
)
def test_the_best_models_that_are_here_make_the_ladder(
    tmp_path: Path, present: list[str], scale: int, models: list[str]
) -> None:
    ladder = build(settings_with(tmp_path, *present), scale, speed(FAST))
    assert [rung.model for rung in ladder] == models
    assert ladder[-1] == Rung(model=f"upscaled-x{scale}")
    for rung in ladder[:-1]:
        assert (rung.tempered_with, rung.harmed_only) == (f"upscaled-x{scale}", scale == 2)


def test_a_picture_takes_the_best_model_up_to_what_the_budget_pays_for(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, X4PLUS)
    first, _ = ladder = build(settings, 4, speed(SLOW))
    assert first.most_px is not None
    assert first.most_deep_px is not None
    assert first.most_deep_px < first.most_px < 500 * 500
    assert choose_rung(ladder, first.most_px, is_harmed=False).model == X4PLUS
    assert choose_rung(ladder, first.most_px + 1, is_harmed=False).model == "upscaled-x4"
    deep = choose_rung(ladder, first.most_deep_px + 1, is_harmed=False, is_deep=True)
    assert deep.model == "upscaled-x4"


@pytest.mark.parametrize(("budget_s", "is_more"), [(5, False), (20, True)])
def test_a_larger_budget_means_a_larger_bound(
    tmp_path: Path, budget_s: float, is_more: bool
) -> None:
    usual = build(settings_with(tmp_path, X4PLUS), 4, speed(SLOW))[0].most_px
    settings = settings_with(tmp_path, auto_budget_s=budget_s)
    moved = build(settings, 4, speed(SLOW))[0].most_px
    assert usual is not None
    assert moved is not None
    assert (moved > usual) == is_more


def test_a_fast_device_gives_the_best_model_to_any_picture(tmp_path: Path) -> None:
    for scale in (2, 4):
        first, _ = build(settings_with(tmp_path, X4PLUS), scale, speed(FAST))
        assert (first.most_px, first.most_deep_px) == (None, None)


def test_without_a_budget_or_a_known_speed_every_image_goes_to_the_fastest_model(
    tmp_path: Path,
) -> None:
    plan = plan_ladder(settings_with(tmp_path, X4PLUS, auto_budget_s=0), 4)
    assert (plan.vivid, plan.build(None)) == (None, (Rung(model="upscaled-x4"),))
    settings = settings_with(tmp_path, auto_budget_s=10)
    assert build(settings, 4, None) == (Rung(model="upscaled-x4"),)
    assert build(settings, 4, speed(100.0)) == (Rung(model="upscaled-x4"),)


@pytest.mark.parametrize(
    ("temper", "in_ladder", "named"),
    [
        ("auto", "upscaled-x4", ""),
        ("off", "", ""),
        ("0", "", ""),
        ("0.3", "upscaled-x4", "upscaled-x4"),
        ("1", "upscaled-x4", "upscaled-x4"),
    ],
)
def test_a_named_model_is_tempered_only_where_the_setting_is_a_number(
    tmp_path: Path, temper: str, in_ladder: str, named: str
) -> None:
    settings = settings_with(tmp_path, X4PLUS, temper=temper)
    assert build(settings, 4, speed(FAST))[0].tempered_with == in_ladder
    by_setting = build(settings.model_copy(update={"model_x4": X4PLUS}), 4, None)
    assert by_setting == (name_rung(BY_NAME[X4PLUS], 4, temper),)
    assert by_setting == (Rung(model=X4PLUS, tempered_with=named),)


def test_networks_that_invent_nothing_are_never_tempered(tmp_path: Path) -> None:
    for name in ("upscaled-x2", "upscaled-x4"):
        spec = ModelStore(tmp_path).find(name)
        for scale in (2, 4):
            assert name_rung(spec, scale, "0.5") == Rung(model=name)


def test_a_model_of_two_passes_is_tempered_pass_by_pass() -> None:
    assert name_rung(BY_NAME[X2PLUS], 4, "0.5").tempered_with == "upscaled-x2"
    three = replace(BY_NAME[X2PLUS], native_scale=8)
    assert name_rung(three, 4, "0.5").tempered_with == "upscaled-x4"


def test_a_named_model_that_is_not_here_is_refused(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, model_x4=X4PLUS)
    with pytest.raises(SettingsError, match="--model='realesrgan-x4plus'"):
        plan_ladder(settings, 4, "--model")


@pytest.mark.parametrize("halo_px", [3, 40])
@pytest.mark.parametrize("budget_s", [0.01, 1, 30])
def test_the_bound_is_the_largest_square_whose_windows_fit_the_budget(
    halo_px: int, budget_s: float
) -> None:
    s_per_px = 1e-5
    tiling = Tiling(window_px=256, halo_px=halo_px, multiple_px=1, shape_step_px=32)

    def takes_s(side_px: int) -> float:
        tiles = tiling.plan(side_px, side_px)
        return s_per_px * sum(tile.window.height * tile.window.width for tile in tiles)

    most_px = largest_px(s_per_px, budget_s, tiling)
    assert most_px is not None
    side_px = int(most_px**0.5)
    assert side_px**2 == most_px
    assert takes_s(side_px) <= budget_s < takes_s(side_px + 1)
    assert largest_px(s_per_px, takes_s(LARGEST_SIDE_PX), tiling) is None
    assert largest_px(1.0, 0.5, tiling) == 0


def test_a_plan_names_what_a_picture_depends_on_and_not_the_speed(tmp_path: Path) -> None:
    """Front ends of several versions compare it: it must not change where pictures do not."""
    settings = settings_with(tmp_path, X4PLUS)
    plan, store = plan_ladder(settings, 4).describe(), ModelStore(settings.models_dir)
    large, small = (store.find(name).sha256[:12] for name in (X4PLUS, "upscaled-x4"))
    assert plan == f"{X4PLUS} {large}, upscaled-x4 {small}, temper auto, within 10 s"
    for change in ({"temper": "off"}, {"auto_budget_s": 5}, {"model_x4": X4PLUS}):
        assert plan_ladder(settings.model_copy(update=change), 4).describe() != plan
    named = settings.model_copy(update={"model_x4": X4PLUS, "auto_budget_s": 5})
    assert plan_ladder(named, 4).describe() == f"{X4PLUS} {large}"


def test_the_description_of_a_model_with_a_partner_names_its_strength_of_denoising(
    tmp_path: Path,
) -> None:
    general, partner = "realesr-general-x4v3", "realesr-general-wdn-x4v3"
    settings = settings_with(tmp_path, general, partner, model_x4=general)
    described = [
        plan_ladder(settings.model_copy(update={"denoise": strength}), 4).describe()
        for strength in (1.0, 0.4)
    ]
    assert [text.rpartition(", ")[2] for text in described] == ["denoise 1", "denoise 0.4"]
