"""Send tiles to an engine, those of a column as its bands, and join the results of these."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from upscaled.image.pixels import Pixels
from upscaled.upscale.tile import Tile
from upscaled_models.backends.base import Band, BandEngine, Column, Engine, Window


def prefers_bands(engine: Engine, px: int) -> bool:
    """Count an image of several windows; return whether it is to go through an engine in bands."""
    return isinstance(engine, BandEngine) and engine.prefers_bands(px)


def cut_windows(rgb: Pixels, tiles: Iterable[Tile]) -> Iterator[Window]:
    """Return the windows of `[H, W, 3]` one by one, padded to their full size."""
    return (tile.window.read_padded(rgb) for tile in tiles)


def open_bands(rgb: Pixels, tiles: Iterable[Tile], engine: Engine) -> Iterator[Window | Band]:
    """Return the windows as `cut_windows` does, but those of a column as bands of it.

    Tiles come from the top down, and no two columns of one number are under way at once.
    """
    columns: dict[int, tuple[Column, int]] = {}
    for tile in tiles:
        window, rows = tile.window.read_padded(rgb), tile.band
        if rows is None:
            yield window
            continue
        if not isinstance(engine, BandEngine):
            raise TypeError(f"{engine.info.label} computes no bands")
        top, left = tile.window.top, tile.window.left
        if rows.is_first:
            columns[tile.column] = engine.open_column(), left
        column, left_before = columns.pop(tile.column)
        if not rows.is_last:
            columns[tile.column] = column, left
        made = range(rows.made[0] - top, rows.made[1] - top)
        yield Band(column, window, rows.own[0] - top, made, rows.is_last, left - left_before)


@dataclass(frozen=True, slots=True)
class BandJoiner:
    """Joins the results of bands with the rows above them that post-processing reads.

    gain: of results. above: these rows of the columns under way.
    """

    gain: int
    above: dict[int, Window] = field(default_factory=dict)

    def join(self, tile: Tile, result: Window) -> Window:
        """Return what a tile shows of its column's results."""
        rows = tile.band
        if rows is None or rows.shown[0] == rows.made[0]:
            return result
        return np.concatenate([self.above.pop(tile.column), result])

    def keep(self, tile: Tile, shown: Window) -> None:
        """Keep the rows of a checked result that the next band shows too."""
        rows = tile.band
        read_again = 0 if rows is None else 2 * (rows.made[1] - rows.final[1]) * self.gain
        if read_again:
            self.above[tile.column] = shown[-read_again:].copy()
