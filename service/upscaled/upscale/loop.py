"""Upscale one image in a plain loop over its tiles."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain, repeat

from upscaled.errors import InternalError
from upscaled.image.alpha import bleed_colour, upscale_alpha
from upscaled.image.pixels import Pixels
from upscaled.image.types import Image
from upscaled.upscale.bands import BandJoiner, cut_windows, open_bands, prefers_bands
from upscaled.upscale.content import Canvas, Content, make_tiling
from upscaled.upscale.passes import Pass, plan_passes
from upscaled.upscale.post_process.pattern_correction import REACH_PX as PATTERN_REACH_PX
from upscaled.upscale.post_process.pattern_correction import PatternCorrection
from upscaled.upscale.post_process.steps import (
    NO_POST_PROCESSING,
    PostProcessing,
    is_neutral,
    neutralise,
)
from upscaled.upscale.stream import Stream
from upscaled.upscale.tile import Tile, count_px
from upscaled.upscale.tiles import Tiling
from upscaled_models.backends.base import Window, least_window_px
from upscaled_models.errors import EngineOutOfMemory
from upscaled_models.registry import ModelSpec


@dataclass(frozen=True, slots=True)
class TilesDone:
    """The state of an image's work before its first tile and after each.

    done, total: tiles; an image of which no pixel needs the network counts as one. They start
    again from 0, with another total, when the device runs out of memory and the image is computed
    again in smaller windows.
    result: the result where further rows of it became final; the first `rows_ready` rows are.
    Where the image is computed again it is another object. It is whole after the last tile.
    computed_share: pixels of all windows, as a share of those of an image full of content.
    """

    done: int
    total: int
    result: Image | None = None
    rows_ready: int = 0
    computed_share: float = 1.0


def upscale_by_tiles(
    image: Image,
    scale: int,
    stream: Stream,
    steps: PostProcessing = NO_POST_PROCESSING,
    faithful: Stream | None = None,
) -> Iterator[TilesDone]:
    """Upscale an image to exactly `scale` times its width and height, in its own depth.

    Args:
        scale: at least 1; any scale goes through any network (see `plan_passes`).
        stream: to the network.
        steps: see `PostProcessing`.
        faithful: to the network whose result each window's result is tempered with. In one pass it
            makes the same scale as each pass of the other (`upscaled.upscale.passes.find_gain`).

    Raises:
        Cancelled: the stream was cancelled.
        EngineOutOfMemory: not even the smallest window fits the device.
        InternalError: the network's result is not finite, or fails its check twice.
    """
    progress = _run_colour(image, scale, stream, steps, faithful)
    if image.alpha is None:
        return progress
    return _with_alpha(progress, image.alpha, scale, steps.threads)


def _run_colour(
    image: Image, scale: int, stream: Stream, steps: PostProcessing, faithful: Stream | None
) -> Iterator[TilesDone]:
    """Upscale an image's colours; hidden pixels first get the nearest visible pixel's colour."""
    alpha = image.alpha
    rgb = image.rgb if alpha is None else bleed_colour(image.rgb, alpha, steps.threads)
    loop = _TileLoop(
        image=replace(image, alpha=None),
        stream=stream,
        passes=plan_passes(scale, stream.engine.info.spec.native_scale),
        steps=steps,
        faithful=faithful,
        is_neutral=is_neutral(rgb),
    )
    yield from loop.compute(rgb, alpha)


def _with_alpha(
    progress: Iterator[TilesDone], alpha: Pixels, scale: int, threads: Executor | None
) -> Iterator[TilesDone]:
    """Add alpha to results; it is enlarged while the network computes the first windows.

    Before them it would cost 4 % of the network's time in 8 bits. A result stays one object from
    its first rows to its last: what encodes it begins again with another one.
    """
    enlarging: Future[Pixels] | None = None
    bare: Image | None = None
    whole: Image | None = None
    with ThreadPoolExecutor(1, thread_name_prefix="alpha") as pool:
        for tiles_done in progress:
            if enlarging is None:  # all is planned, and the first window comes next
                enlarging = pool.submit(upscale_alpha, alpha, scale, threads)
            if tiles_done.result is not None:
                if whole is None or bare is not tiles_done.result:
                    bare = tiles_done.result
                    whole = replace(bare, alpha=enlarging.result())
                tiles_done = replace(tiles_done, result=whole)
            yield tiles_done


@dataclass(frozen=True, slots=True, eq=False)
class _Finished:
    """Pixels of a window's result, or of its core, `[h * gain, w * gain, 3]`.

    averaged: these averaged down to the source's size, `[h, w, 3]`; None: nothing has done so.
    """

    pixels: Window
    averaged: Window | None = None


@dataclass(frozen=True, slots=True)
class _TileLoop:
    """All passes of one image, which gives the result its metadata, through the network."""

    image: Image
    stream: Stream
    passes: tuple[Pass, ...]
    steps: PostProcessing
    faithful: Stream | None
    is_neutral: bool

    def compute(self, rgb: Pixels, alpha: Pixels | None) -> Iterator[TilesDone]:
        """Run all passes, in windows as large as fit in the device's memory."""
        contents = self._find_contents(rgb, alpha)
        engine = self.stream.engine
        least_px = least_window_px(self.halo_px, engine.info.spec.multiple_px)
        window_px = max(least_px, engine.info.window_px)
        while True:
            try:
                yield from self._compute_passes(rgb, contents, window_px)
            except EngineOutOfMemory:
                if window_px <= least_px:
                    raise
                window_px = max(least_px, window_px // 2)
            else:
                return

    @property
    def halo_px(self) -> int:
        return self.steps.halo_px(self._specs, self._least_gain)

    @property
    def _needs_flat_halo(self) -> bool:
        """Return whether windows need their halo where it is flat.

        A network that keeps colours depends on differences alone, and assumes none beyond its
        border.
        """
        keeps_colours = all(spec.keeps_colour for spec in self._specs)
        return not keeps_colours or self.steps.reach_px(self._least_gain) > 0

    @property
    def _specs(self) -> list[ModelSpec]:
        streams = (self.stream,) if self.faithful is None else (self.stream, self.faithful)
        return [stream.engine.info.spec for stream in streams]

    @property
    def _least_gain(self) -> int:
        return min(one_pass.gain for one_pass in self.passes)

    def _find_contents(self, rgb: Pixels, alpha: Pixels | None) -> list[Content]:
        """Find what of the image each pass has to compute."""
        faithful = None if self.faithful is None else self.faithful.engine.info.spec
        reach_px = self.steps.flat_reach_px(self.stream.engine.info.spec, faithful)
        contents = [Content.of(rgb, alpha, reach_px)]
        for one_pass in self.passes[:-1]:
            changed_px = PATTERN_REACH_PX * one_pass.gain + (reach_px or 0)
            contents.append(contents[-1].enlarged(one_pass.gain, changed_px))
        return contents

    def _compute_passes(
        self, rgb: Pixels, contents: Sequence[Content], window_px: int
    ) -> Iterator[TilesDone]:
        tiling = self._tiling(window_px, sum(content.px for content in contents))
        plans = [content.plan(tiling) for content in contents]
        computed_share = count_px(chain(*plans)) / sum(
            tiling.count_px(content.height_px, content.width_px) for content in contents
        )
        done, total = 0, max(1, sum(map(len, plans)))
        yield TilesDone(done, total)
        for one_pass, content, tiles in zip(self.passes, contents, plans, strict=True):
            height = rgb.shape[0]
            canvas = content.make_canvas(rgb, one_pass.gain, tiles)
            result = replace(self.image, rgb=canvas.pixels) if content is contents[-1] else None
            correction = None
            if self.steps.corrects_patterns:
                correction = PatternCorrection(rgb, canvas.pixels, self.steps.threads)
            filled = [*(tile.core.top for tile in tiles[1:]), height]
            ready = 0
            for (tile, averaged), rows in zip(
                self._fill_canvas(rgb, canvas, one_pass, content, tiles), filled, strict=False
            ):
                done, before = done + 1, ready
                canvas.fill_rows(rows)
                if correction is not None:
                    correction.add(tile.core, averaged, content.is_seen)
                ready = rows if correction is None else correction.advance(rows)
                is_further = ready > before
                rows_ready = ready * one_pass.gain if is_further else 0
                yield TilesDone(
                    done, total, result if is_further else None, rows_ready, computed_share
                )
            canvas.fill_rows(height)
            rgb = canvas.pixels
        if not done:
            yield TilesDone(total, total, result, rgb.shape[0], computed_share)

    def _fill_canvas(
        self, rgb: Pixels, canvas: Canvas, one_pass: Pass, content: Content, tiles: Sequence[Tile]
    ) -> Iterator[tuple[Tile, Pixels | None]]:
        """Fill the canvas, and yield each tile once it is filled, with its `_Finished.averaged`."""
        joiner = BandJoiner(one_pass.gain)
        results = self.stream.run(open_bands(rgb, tiles, self.stream.engine), one_pass.reduce)
        faithful_results: Iterable[Window | None] = repeat(None, len(tiles))
        if self.faithful is not None:
            faithful_results = self._compute_faithful(self.faithful, rgb, one_pass, tiles)
        # The faithful network first: it is ahead, and fast, while the other computes.
        for tile, faithful, result in zip(tiles, faithful_results, results, strict=True):
            shown = joiner.join(tile, result)
            checked = self._require_plausible(self.stream, rgb, tile, shown, one_pass.reduce)
            joiner.keep(tile, checked.pixels)
            finished = self._post_process(rgb, tile, checked, faithful, one_pass)
            if self.is_neutral:
                finished = _Finished(neutralise(finished.pixels))
            content.write(canvas, tile.core, finished.pixels, one_pass.gain)
            yield tile, finished.averaged

    def _compute_faithful(
        self, stream: Stream, rgb: Pixels, one_pass: Pass, tiles: Sequence[Tile]
    ) -> Iterator[Window]:
        """Yield the faithful network's results for the same windows."""
        reduce = stream.engine.info.spec.native_scale // one_pass.gain
        results = stream.run(cut_windows(rgb, tiles), reduce)
        for tile, result in zip(tiles, results, strict=True):
            yield self._require_plausible(stream, rgb, tile, result, reduce).pixels

    def _post_process(
        self, rgb: Pixels, tile: Tile, checked: _Finished, faithful: Window | None, one_pass: Pass
    ) -> _Finished:
        """Return the core of a window's checked result: corrected and tempered."""
        core = tile.core.within(tile.shown)
        if faithful is None:
            corrected = self.steps.correct(tile.shown.read_padded(rgb), checked.pixels)
            averaged = checked.averaged if corrected is checked.pixels else None
            kept = None if averaged is None else core.read(averaged)
            return _Finished(core.scaled(one_pass.gain).read(corrected), kept)
        seen = core.grown(self.steps.reach_px(one_pass.gain), tile.window.within(tile.window))
        vivid, faithful = (
            seen.scaled(one_pass.gain).read(each) for each in (checked.pixels, faithful)
        )
        tempered = self.steps.temper(seen.read(tile.window.read_padded(rgb)), vivid, faithful)
        return _Finished(core.within(seen).scaled(one_pass.gain).read(tempered))

    def _require_plausible(
        self, stream: Stream, rgb: Pixels, tile: Tile, result: Window, reduce: int
    ) -> _Finished:
        """Return the result, computed again in float32 where it fails its check."""
        if not self.steps.checks:
            return _Finished(result)
        source = tile.shown.read_padded(rgb)
        averaged = self.steps.average_plausible(source, result)
        if averaged is None:
            (result,) = stream.run([tile.window.read_padded(rgb)], reduce, is_exact=True)
            if tile.band is not None:
                gain = stream.engine.info.spec.native_scale // reduce
                result = tile.shown.within(tile.window).scaled(gain).read(result)
            averaged = self.steps.average_plausible(source, result)
        if averaged is None:
            raise InternalError(detail=f"{stream.engine.info.model}: a window fails its check")
        return _Finished(result, averaged)

    def _tiling(self, window_px: int, px: int) -> Tiling:
        """Return the sizes of windows for `px` pixels in all passes."""
        engine, is_plain = self.stream.engine, self.faithful is None and not self.image.is_deep
        return make_tiling(
            engine.info,
            self.halo_px,
            window_px,
            needs_flat_halo=self._needs_flat_halo,
            in_bands=is_plain and px > window_px**2 and prefers_bands(engine, px),
        )
