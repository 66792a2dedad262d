"""Send tiles to an engine, those of a column as its bands, and join the results of these."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from upscaled.image.pixels import Pixels
from upscaled.upscale.tile import Tile
from upscaled_models.backends.base import Band, BandEngine, Column, Engine, Window


def cut_windows(rgb: Pixels, tiles: Iterable[Tile]) -> Iterator[Window]:
    """Return the windows of `[H, W, 3]` one by one, padded to their full size."""
    return (tile.window.read_padded(rgb) for tile in tiles)


def open_bands(rgb: Pixels, tiles: Iterable[Tile], engine: Engine) -> Iterator[Window | Band]:
    """Return the windows as `cut_windows` does, those of a column as its bands.

    Tiles of a column have the same columns of the image, which no other tile of those rows has.
    """
    columns: dict[int, Column] = {}
    for tile in tiles:
        window, rows = tile.window.read_padded(rgb), tile.band
        if rows is None:
            yield window
            continue
        if not isinstance(engine, BandEngine):
            raise TypeError(f"{engine.info.label} computes no bands")
        top = tile.window.top
        if rows.own[0] == top:
            columns[tile.core.left] = engine.open_column()
        column = columns.pop(tile.core.left)
        if not rows.is_last:
            columns[tile.core.left] = column
        made = range(rows.made[0] - top, rows.made[1] - top)
        yield Band(column, window, rows.own[0] - top, made, rows.is_last)


def join_bands(tiles: Sequence[Tile], results: Iterable[Window], gain: int) -> Iterator[Window]:
    """Return what each tile shows of the results: a band, with the rows above it that it needs."""
    above: dict[int, Window] = {}
    for tile, result in zip(tiles, results, strict=True):
        rows = tile.band
        shown = result
        if rows is not None:
            needed = rows.made[0] - rows.shown[0]
            if needed:
                shown = np.concatenate([above.pop(tile.core.left), result])
            read_again = 2 * (rows.made[1] - rows.final[1]) * gain
            if read_again:
                above[tile.core.left] = result[-read_again:].copy()
        yield shown
