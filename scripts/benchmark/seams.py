"""Part (d): how far a picture put together from windows is from one computed in a single window."""

from pathlib import Path

from scripts.benchmark.contestant import Entry
from scripts.benchmark.effort import Effort
from scripts.benchmark.machine import Facts
from scripts.benchmark.ours import (
    WatchedEngine,
    open_upscaler_with,
    settings_of,
    upscale_once,
)
from scripts.benchmark.pictures import Pixels, largest_difference, make_pixels, mean_difference
from scripts.benchmark.weights import (
    X4PLUS,
    X4PLUS_ANIME,
    Weights,
    add_anime,
    add_general,
    add_lively_rrdb,
    add_packaged,
    add_small_compact,
)
from upscaled.upscale.engines import open_model
from upscaled_models.backends.base import least_window_px, round_up
from upscaled_models.store import ModelStore

TINY_CORE_PX = 16


def measure_seams(data_dir: Path, effort: Effort, device: str, general: Path | None) -> Facts:
    """By model: sizes in pixels, halo, windows, and differences in levels of 255; in float32."""
    rows: Facts = {}
    for weights in _models(data_dir, general, is_tiny=effort.is_tiny):
        spec = ModelStore(data_dir / "models").find(weights.model)
        size = effort.rrdb_seams_px if spec.family == "rrdb" else effort.seams_px
        entry = Entry("ours", str(data_dir), weights.model, "exact", device, *size, is_tuned=False)
        rows[weights.model] = {"weights": weights.origin} | measure_one(
            entry, is_tiny=effort.is_tiny
        )
    return rows


def measure_one(entry: Entry, *, is_tiny: bool = False) -> Facts:
    """Through windows as the service takes them (the smallest that make sense, if tiny)."""
    spec = ModelStore(Path(entry.data_dir) / "models").find(entry.model)
    least_px = least_window_px(spec.halo_px, spec.multiple_px) + TINY_CORE_PX
    whole_px = round_up(max(entry.height_px, entry.width_px), spec.multiple_px)
    tiled, windows = _upscale(entry, window_px=least_px if is_tiny else 0)
    untiled, windows_untiled = _upscale(entry, window_px=whole_px)
    if windows_untiled != 1 or windows < 2:
        raise AssertionError(f"{entry.model}: {windows} windows against {windows_untiled}")
    return {
        "height_px": entry.height_px,
        "width_px": entry.width_px,
        "halo_px": spec.halo_px,
        "radius_px": spec.radius_px,
        "windows": windows,
        "largest_levels": largest_difference(tiled, untiled),
        "mean_levels": round(mean_difference(tiled, untiled), 6),
    }


def _upscale(entry: Entry, window_px: int) -> tuple[Pixels, int]:
    """The picture, and through how many windows it came."""
    store = ModelStore(Path(entry.data_dir) / "models")
    scale = store.find(entry.model).native_scale
    settings = settings_of(entry, tile_window_px=window_px)
    engine = WatchedEngine(open_model(settings, entry.model))
    with open_upscaler_with(engine, settings, scale) as upscaler:
        pixels = make_pixels(entry.height_px, entry.width_px)
        result = upscale_once(pixels, scale, upscaler)
    return result, sum(engine.windows.values())


def _models(data_dir: Path, general: Path | None, *, is_tiny: bool) -> list[Weights]:
    shipped = [Weights("upscaled-x2", "shipped"), Weights("upscaled-x4", "shipped")]
    if is_tiny:
        return [add_small_compact(data_dir), add_lively_rrdb(data_dir, num_block=1)]
    anime = add_anime(data_dir)
    official = [add_packaged(data_dir, X4PLUS), add_packaged(data_dir, X4PLUS_ANIME)]
    rrdb = [each for each in official if each] or [add_lively_rrdb(data_dir)]
    return [*shipped, add_general(data_dir, general), *([anime] if anime else []), *rrdb]
