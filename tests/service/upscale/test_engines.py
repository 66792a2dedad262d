from pathlib import Path

import pytest
import torch

from upscaled.config import Settings, SettingsError
from upscaled.upscale.engines import choose_device, choose_window_px, open_known_model, open_model
from upscaled.upscale.tiles import Tiling
from upscaled_models.backends.base import least_window_px
from upscaled_models.errors import ModelError
from upscaled_models.processor import count_cores
from upscaled_models.registry import ModelSpec, official_models
from upscaled_models.store import ModelStore

BY_NAME = {spec.name: spec for spec in official_models()}


def store_with(folder: Path, *names: str) -> ModelStore:
    """A store in which these official models are present; their content is never read here."""
    store = ModelStore(folder)
    for name in names:
        path = store.target(store.find(name))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return store


def test_an_unknown_model_and_a_file_that_is_not_the_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model 'x'"):
        open_model(Settings(device="cpu", data_dir=tmp_path), "x")
    store_with(tmp_path / "models", "realesrgan-x4plus")
    with pytest.raises(ModelError, match="SHA-256"):
        open_model(Settings(device="cpu", data_dir=tmp_path), "realesrgan-x4plus")


@pytest.mark.parametrize("name", sorted(BY_NAME))
@pytest.mark.parametrize("is_cuda", [False, True])
def test_every_official_model_has_a_window_with_a_core_on_its_multiple(
    name: str, is_cuda: bool
) -> None:
    spec = BY_NAME[name]

    window_px = choose_window_px(Settings(), spec, is_cuda=is_cuda)

    assert window_px >= least_window_px(spec.halo_px, spec.multiple_px)
    assert window_px % spec.multiple_px == 0


@pytest.mark.parametrize(
    ("name", "exact_px", "auto_px", "cuda_px"),
    [
        ("realesrgan-x4plus", 256, 512, 816),
        ("realesrgan-x2plus", 512, 1024, 1632),
        ("realesrgan-x4plus-anime-6b", 512, 512, 816),
        ("realesr-general-x4v3", 512, 512, 800),
        ("upscaled-x4-faithful", 384, 512, 800),
    ],
)
def test_windows_have_the_side_that_measured_fastest_for_the_family_and_device(
    name: str, exact_px: int, auto_px: int, cuda_px: int, tmp_path: Path
) -> None:
    spec = ModelStore(tmp_path).find(name)
    assert choose_window_px(Settings(precision="exact"), spec, is_cuda=False) == exact_px
    assert choose_window_px(Settings(tuning=False), spec, is_cuda=False) == exact_px
    assert choose_window_px(Settings(), spec, is_cuda=False) == auto_px
    assert choose_window_px(Settings(), spec, is_cuda=True) == cuda_px


@pytest.mark.parametrize(
    "name", ["realesrgan-x4plus", "realesr-general-x4v3", "upscaled-x4-faithful"]
)
def test_two_windows_a_side_make_the_longest_side_on_cuda(name: str, tmp_path: Path) -> None:
    spec = ModelStore(tmp_path).find(name)
    window_px = choose_window_px(Settings(), spec, is_cuda=True)
    for side_px, count in ((1500, 4), (2 * window_px, 9)):
        tiling = Tiling(
            window_px=window_px,
            halo_px=spec.halo_px,
            multiple_px=spec.multiple_px,
            shape_step_px=16,
        )
        assert len(tiling.plan(side_px, side_px)) == count


def test_tile_window_px_is_used_down_to_the_least_that_works() -> None:
    spec: ModelSpec = BY_NAME["realesrgan-x2plus"]
    least_px = least_window_px(spec.halo_px, spec.multiple_px)

    for wanted_px in (least_px, least_px + 1, 2048):
        chosen_px = choose_window_px(Settings(tile_window_px=wanted_px), spec, is_cuda=False)
        assert chosen_px == wanted_px // spec.multiple_px * spec.multiple_px
    with pytest.raises(SettingsError, match="UPSCALED_TILE_WINDOW_PX"):
        choose_window_px(Settings(tile_window_px=least_px - 1), spec, is_cuda=False)


def test_a_limit_of_gpu_memory_halves_windows_until_they_fit() -> None:
    spec: ModelSpec = BY_NAME["realesrgan-x4plus"]
    whole_px = choose_window_px(Settings(), spec, is_cuda=True)
    fits_mb = whole_px**2 * spec.network.cuda_bytes_per_px(spec.shape) // 2**20 + 1

    def windows(is_cuda: bool) -> list[int]:
        limits = (fits_mb, fits_mb // 2, fits_mb // 4 + 1, 1)
        settings = [Settings(gpu_memory_mb=limit_mb) for limit_mb in limits]
        return [choose_window_px(each, spec, is_cuda=is_cuda) for each in settings]

    *halves, last_px = windows(is_cuda=True)
    assert halves == [whole_px, whole_px // 2, whole_px // 2]
    assert last_px >= least_window_px(spec.halo_px, spec.multiple_px)
    assert len(set(windows(is_cuda=False))) == 1


def test_the_shipped_models_open_without_any_download(tmp_path: Path) -> None:
    for scale in (2, 4):
        settings = Settings(device="cpu", precision="exact", data_dir=tmp_path)
        info = open_model(settings, f"upscaled-x{scale}").info
        assert (info.model, info.spec.native_scale) == (f"upscaled-x{scale}", scale)
        assert info.window_px % info.spec.multiple_px == 0


@pytest.mark.parametrize("values", [{"precision": "exact"}, {"tuning": False}])
def test_nothing_is_tuned_in_float32_or_where_it_is_off(
    tmp_path: Path, values: dict[str, object]
) -> None:
    settings = Settings(device="cpu", threads=1, data_dir=tmp_path).model_copy(update=values)
    engine, is_chosen = open_known_model(settings, "upscaled-x4-faithful")

    info = open_model(settings, "upscaled-x4-faithful").info
    assert (info.label, info.window_px, info.proof) == ("torch float32", 384, "")
    assert (engine.info.label, is_chosen) == ("torch float32", True)
    assert not (tmp_path / "tuning").exists()


def test_without_a_stored_choice_float32_is_opened_and_nothing_is_measured(tmp_path: Path) -> None:
    settings = Settings(device="cpu", threads=1, data_dir=tmp_path)
    unknown, is_chosen = open_known_model(settings, "upscaled-x2")
    assert (unknown.info.label, is_chosen) == ("torch float32", False)
    assert list(tmp_path.iterdir()) == []


def test_a_device_that_is_not_here_stops_the_start() -> None:
    absent = f"cuda:{torch.cuda.device_count()}"

    with pytest.raises(SettingsError, match=f"UPSCALED_DEVICE='{absent}'"):
        choose_device(Settings(device=absent))


def test_cores_are_divided_among_workers_and_each_has_one() -> None:
    cores = count_cores()

    assert choose_device(Settings(device="cpu", workers=1)).threads == cores
    assert choose_device(Settings(device="cpu", workers=min(64, 2 * cores))).threads == 1
    assert choose_device(Settings(device="cpu", threads=7)).threads == 7
