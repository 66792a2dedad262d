"""Part `seams`: how far a picture made of tiles is from one computed in a single window."""

from pathlib import Path

from scripts.benchmark.contestant import Entry
from scripts.benchmark.effort import Effort
from scripts.benchmark.machine import Figures
from scripts.benchmark.ours import find_spec, open_entry, upscale
from scripts.benchmark.pictures import difference, make_pixels
from scripts.benchmark.weights import (
    X4PLUS,
    X4PLUS_ANIME,
    Weights,
    add_anime,
    add_general,
    add_packaged,
)
from upscaled_models.backends.base import least_window_px, round_up

TINY_CORE_PX = 16
SHIPPED = (Weights("upscaled-x2", "shipped"), Weights("upscaled-x4", "shipped"))


def measure_seams(data_dir: Path, effort: Effort, device: str, general: Path | None) -> Figures:
    """Measure each model in float32: sizes in pixels, halo, tiles, differences in levels of 255."""
    models: list[Weights | None] = [*SHIPPED]
    if not effort.is_tiny:
        official = (add_packaged(data_dir, name) for name in (X4PLUS, X4PLUS_ANIME))
        models += [add_general(data_dir, general), add_anime(data_dir), *official]
    rows: Figures = {}
    for weights in filter(None, models):
        entry = Entry("ours", str(data_dir), weights.model, "exact", device, is_tuned=False)
        is_rrdb = find_spec(entry).family == "rrdb"
        size_px = effort.rrdb_seams_px if is_rrdb else effort.seams_px
        figures = measure_one(entry, size_px, is_tiny=effort.is_tiny)
        rows[weights.model] = {"weights": weights.origin} | figures
    return rows


def measure_one(entry: Entry, size_px: tuple[int, int], *, is_tiny: bool = False) -> Figures:
    """Compare the tiles that the service takes (the smallest that make sense, if tiny) with one."""
    spec = find_spec(entry)
    least_px = least_window_px(spec.halo_px, spec.multiple_px) + TINY_CORE_PX
    whole_px = round_up(max(size_px), spec.multiple_px)
    pixels = make_pixels(*size_px)
    with open_entry(entry, least_px if is_tiny else 0) as core:
        tiled, tiles = upscale(core, pixels, spec.native_scale)
    with open_entry(entry, whole_px) as core:
        untiled, tiles_untiled = upscale(core, pixels, spec.native_scale)
    if tiles_untiled != 1 or tiles < 2:
        raise AssertionError(f"{entry.model}: {tiles} tiles against {tiles_untiled}")
    levels = difference(tiled, untiled)
    return {
        "height_px": size_px[0],
        "width_px": size_px[1],
        "halo_px": spec.halo_px,
        "radius_px": spec.radius_px,
        "tiles": tiles,
        "largest_levels": int(levels.max()),
        "mean_levels": round(float(levels.mean()), 6),
    }
