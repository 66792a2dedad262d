"""The box filter in bands: each column keeps by itself what it needs of the bands before."""

import weakref
from dataclasses import dataclass, field, replace

import numpy as np

from tests.service.upscale.box_engine import BoxEngine, average_down
from upscaled_models.backends.base import Band, Computed, EngineInfo, Started, Window


@dataclass
class BandBoxEngine(BoxEngine):
    """Computes tall windows in bands as well.

    `bands` are the heights and widths of what bands computed, `columns` those that were opened.
    """

    bands: list[tuple[int, int]] = field(default_factory=list)
    columns: "list[weakref.ref[BoxColumn]]" = field(default_factory=list)

    @property
    def info(self) -> EngineInfo:
        info = super().info
        spec = replace(info.spec, radius_px=self.radius_px)
        return replace(info, spec=spec, computes_bands=True)

    def prefers_bands(self, px: int) -> bool:
        return px > 0

    def open_column(self) -> "BoxColumn":
        column = BoxColumn(self)
        self.columns.append(weakref.ref(column))
        return column

    @property
    def computed_px(self) -> int:
        """The pixels of all windows and bands."""
        return sum(height * width for height, width in self.seen + self.bands)


@dataclass(eq=False)
class BoxColumn:
    """Reads the own rows of each band alone: a band left out, or fed too little, shows in pixels.

    kept: the rows that the next result depends on.
    """

    engine: BandBoxEngine
    kept: Window | None = None
    is_over: bool = False

    def start(self, band: Band, reduce: int = 1) -> Started:
        assert not self.is_over
        own = band.window[band.known_rows :]
        self.engine.bands.append((own.shape[0], own.shape[1]))
        rows = own if self.kept is None else np.concatenate([self.kept, own])
        result = average_down(self.engine.filter(rows), reduce)
        gain = self.engine.native_scale // reduce
        top = len(rows) - len(band.window)  # of the band's window; above the first row kept, if < 0
        made = result[max(0, top + band.made.start) * gain : (top + band.made.stop) * gain]
        assert made.shape[0] == len(band.made) * gain, "the rows above are not kept any more"
        self._keep(rows, top + band.made.stop)
        self.is_over = band.is_last
        return Computed([made])

    def _keep(self, rows: Window, made: int) -> None:
        """Keep what the result from row `made` on depends on."""
        dropped = max(0, made - self.engine.radius_px)
        dropped -= dropped % self.engine.multiple_px
        self.kept = rows[dropped:].copy()
