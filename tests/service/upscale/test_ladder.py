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
DEFAULT, FAITHFUL = "upscaled-x4", "upscaled-x4-faithful"
DEFAULT_X2, FAITHFUL_X2 = "upscaled-x2", "upscaled-x2-faithful"
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


def build(
    settings: Settings, scale: int, vivid: Speed | None, default: Speed | None = None
) -> tuple[Rung, ...]:
    """Build the ladder of the vivid model's speed and the default one's, where they are known."""
    plan = plan_ladder(settings, scale)
    known = {each.name: vivid for each in (plan.vivid,) if each and vivid}
    return plan.build(known | {each.name: default for each in (plan.default,) if each and default})


@pytest.mark.parametrize(
    ("present", "scale", "models"),
    [
        ([], 2, [DEFAULT_X2, FAITHFUL_X2]),
        ([], 4, [DEFAULT, FAITHFUL]),
        (["realesr-general-x4v3", "realesr-animevideov3"], 4, [DEFAULT, FAITHFUL]),
        ([X4PLUS], 4, [X4PLUS, DEFAULT, FAITHFUL]),
        ([X4PLUS], 2, [X4PLUS, DEFAULT_X2, FAITHFUL_X2]),
        ([X4PLUS, X2PLUS], 2, [X2PLUS, DEFAULT_X2, FAITHFUL_X2]),
        ([X2PLUS], 4, [DEFAULT, FAITHFUL]),
    ],
)
def test_the_best_models_that_are_here_make_the_ladder(
    tmp_path: Path, present: list[str], scale: int, models: list[str]
) -> None:
    ladder = build(settings_with(tmp_path, *present), scale, speed(FAST))
    faithful = FAITHFUL if scale == 4 else FAITHFUL_X2
    assert [rung.model for rung in ladder] == models
    assert ladder[-1] == Rung(model=faithful)
    for rung in ladder[:-1]:
        if rung.model in (DEFAULT, DEFAULT_X2):
            assert rung == Rung(model=rung.model, harmed_only=scale == 2)
        else:
            assert (rung.tempered_with, rung.harmed_only) == (faithful, scale == 2)


def test_the_best_model_that_the_budget_allows_is_chosen(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, X4PLUS)
    first, *_ = ladder = build(settings, 4, speed(SLOW))
    assert first.most_px is not None
    assert first.most_deep_px is not None
    assert first.most_deep_px < first.most_px < 500 * 500
    assert choose_rung(ladder, first.most_px, is_harmed=False).model == X4PLUS
    assert choose_rung(ladder, first.most_px + 1, is_harmed=False).model == DEFAULT
    deep = choose_rung(ladder, first.most_deep_px + 1, is_harmed=False, is_deep=True)
    assert deep.model == DEFAULT


def test_at_x2_harmed_images_of_any_size_go_to_the_default_and_clean_ones_to_the_faithful(
    tmp_path: Path,
) -> None:
    plan = plan_ladder(settings_with(tmp_path, X4PLUS), 2)
    assert [spec.name for spec in plan.bounded] == [X4PLUS], "the default's speed is not needed"
    assert plan.models == (X4PLUS, DEFAULT_X2, FAITHFUL_X2)
    ladder = plan.build({X4PLUS: speed(SLOW)})
    for is_harmed, model in ((True, DEFAULT_X2), (False, FAITHFUL_X2)):
        assert choose_rung(ladder, 8000 * 8000, is_harmed=is_harmed).model == model


@pytest.mark.parametrize("is_deep", [False, True])
def test_the_largest_pictures_use_the_faithful_model(tmp_path: Path, is_deep: bool) -> None:
    ladder = build(settings_with(tmp_path, X4PLUS), 4, speed(SLOW), speed(SLOW / 10))
    first, second, last = ladder
    bounds = [each.most_deep_px if is_deep else each.most_px for each in (first, second)]
    assert bounds[0] is not None
    assert bounds[1] is not None
    assert bounds[0] < bounds[1]
    assert (second.model, second.tempered_with, last) == (DEFAULT, "", Rung(model=FAITHFUL))
    for px, model in ((bounds[1], DEFAULT), (bounds[1] + 1, FAITHFUL)):
        assert choose_rung(ladder, px, is_harmed=True, is_deep=is_deep).model == model


def test_a_default_model_that_is_too_slow_for_any_picture_is_no_rung(tmp_path: Path) -> None:
    ladder = build(settings_with(tmp_path), 4, None, speed(100.0))
    assert ladder == (Rung(model=FAITHFUL),)


def test_the_default_model_is_tempered_only_where_the_setting_is_a_number(tmp_path: Path) -> None:
    """Its results are like those of tempering already."""
    mixed = build(settings_with(tmp_path, temper="0.3"), 4, None, speed(SLOW / 10))[0]
    alone = build(settings_with(tmp_path), 4, None, speed(SLOW / 10))[0]
    assert (mixed.tempered_with, alone.tempered_with) == (FAITHFUL, "")
    assert mixed.most_px is not None
    assert alone.most_px is not None
    assert mixed.most_px < alone.most_px, "mixing takes time, too"


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
        first, *_ = build(settings_with(tmp_path, X4PLUS), scale, speed(FAST))
        assert (first.most_px, first.most_deep_px) == (None, None)


def test_without_a_budget_every_image_uses_the_fastest_model(tmp_path: Path) -> None:
    plan = plan_ladder(settings_with(tmp_path, X4PLUS, auto_budget_s=0), 4)
    assert (plan.bounded, plan.build({})) == ((), (Rung(model=FAITHFUL),))


def test_without_a_known_speed_the_default_model_is_chosen_for_every_image(
    tmp_path: Path,
) -> None:
    settings = settings_with(tmp_path, X4PLUS)
    below = (Rung(model=DEFAULT), Rung(model=FAITHFUL))
    assert build(settings, 4, None) == below
    assert build(settings, 4, speed(100.0)) == below


def test_the_small_models_of_a_ladder_are_kept_in_memory(tmp_path: Path) -> None:
    assert plan_ladder(settings_with(tmp_path, X4PLUS), 4).kept == (DEFAULT, FAITHFUL)
    assert plan_ladder(settings_with(tmp_path, X4PLUS), 2).kept == (DEFAULT_X2, FAITHFUL_X2)


@pytest.mark.parametrize(
    ("temper", "in_ladder", "named"),
    [
        ("auto", FAITHFUL, ""),
        ("off", "", ""),
        ("0", "", ""),
        ("0.3", FAITHFUL, FAITHFUL),
        ("1", FAITHFUL, FAITHFUL),
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
    for name in (DEFAULT_X2, FAITHFUL_X2, FAITHFUL):
        spec = ModelStore(tmp_path).find(name)
        for scale in (2, 4):
            assert name_rung(spec, scale, "0.5") == Rung(model=name)


def test_a_model_of_two_passes_is_tempered_pass_by_pass() -> None:
    assert name_rung(BY_NAME[X2PLUS], 4, "0.5").tempered_with == FAITHFUL_X2
    three = replace(BY_NAME[X2PLUS], native_scale=8)
    assert name_rung(three, 4, "0.5").tempered_with == FAITHFUL


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


def test_a_model_that_computes_bands_is_used_for_larger_pictures_of_8_bits(tmp_path: Path) -> None:
    slow = speed(SLOW / 10)
    whole, bands = (
        build(settings_with(tmp_path), 4, None, slow.model_copy(update=more))[0]
        for more in ({"window_px": 512}, {"window_px": 512, "computes_bands": True})
    )
    assert whole.model == bands.model == DEFAULT
    assert whole.most_px is not None
    assert bands.most_px is not None
    assert bands.most_px > 1.1 * whole.most_px
    assert bands.most_deep_px == whole.most_deep_px, "16 bits go through whole windows"
    tempered = [
        build(settings_with(tmp_path, X4PLUS), 4, slow.model_copy(update=more))[0]
        for more in ({"window_px": 512}, {"window_px": 512, "computes_bands": True})
    ]
    assert tempered[0].tempered_with
    assert tempered[0] == tempered[1], "so do pictures that another network tempers"


def test_a_plan_names_what_a_picture_depends_on_and_not_the_speed(tmp_path: Path) -> None:
    """Front ends of several versions compare it: it must not change where pictures do not."""
    settings = settings_with(tmp_path, X4PLUS)
    plan, store = plan_ladder(settings, 4).describe(), ModelStore(settings.models_dir)
    large, default, small = (store.find(name).sha256[:12] for name in (X4PLUS, DEFAULT, FAITHFUL))
    assert plan == (
        f"{X4PLUS} {large}, {DEFAULT} {default}, {FAITHFUL} {small}, temper auto, within 10 s"
    )
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
