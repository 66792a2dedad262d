"""The core as Python code uses it, with the models that ship."""

from collections.abc import Iterator, Sequence
from threading import Barrier
from weakref import ref

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.service.image.samples import CHANNELS, RGB, RGBA, picture, png, save
from tests.service.upscale.box_engine import CountedBatches
from upscaled.config import Settings, load_settings
from upscaled.errors import InvalidParameter
from upscaled.image.encode import Piece
from upscaled.image.pixels import Pixels
from upscaled.upscale import ladder
from upscaled.upscale.concurrency import Cancellation, Cancelled
from upscaled.upscale.content import Canvas, Content
from upscaled.upscale.core import Core
from upscaled.upscale.model_choice import Rung
from upscaled.upscale.opening import open_core
from upscaled.upscale.result import Result
from upscaled.upscale.tile import Tile
from upscaled_models.errors import UnknownModel


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("data")
    return load_settings(
        {}, data_dir=folder, device="cpu", precision="exact", threads=1, auto_budget_s=0
    )


@pytest.fixture(scope="module")
def core(settings: Settings) -> Iterator[Core]:
    with open_core(settings, decoders=1) as opened:
        yield opened


@pytest.mark.parametrize("threads", [1, 3])
def test_post_processing_has_the_threads_of_the_setting_and_none_beside_a_single_one(
    settings: Settings, threads: int
) -> None:
    chosen = settings.model_copy(update={"threads": threads})
    with open_core(chosen, scales=(2,), decoders=1) as core:
        if threads == 1:
            assert core.threads is None
        else:
            assert core.threads is not None
            at_once = Barrier(threads)
            list(core.threads.map(lambda _: at_once.wait(60), range(threads)))
            assert core.threads._max_workers == threads


def test_any_model_that_is_here_can_be_named(core: Core) -> None:
    source = save(picture(24, 32), "PNG")
    result = core.upscale(source, 2, model="upscaled-x4-faithful")
    assert (result.model, result.width_px) == ("upscaled-x4-faithful", 64)
    for absent in ("realesrgan-x2plus", "nonsense", "../upscaled-x4-faithful"):
        with pytest.raises(InvalidParameter, match="no model"):
            core.upscale(source, 2, model=absent)


def test_the_ladder_of_a_request_replaces_that_of_the_machine(core: Core) -> None:
    source = save(picture(24, 32), "PNG")
    assert core.upscale(source, 2).model == "upscaled-x2-faithful"
    ladder = (Rung(model="upscaled-x4-faithful", most_px=24 * 32), Rung(model="upscaled-x2"))
    assert core.upscale(source, 2, ladder=ladder).model == "upscaled-x4-faithful"
    larger = save(picture(24, 33), "PNG")
    assert core.upscale(larger, 2, ladder=ladder).model == "upscaled-x2"


@pytest.mark.parametrize(
    ("colour", "media_type", "model"),
    [(RGB, "image/jpeg", "upscaled-x4-faithful"), (RGBA, "image/png", "upscaled-x2")],
)
def test_16_bits_bound_a_model_only_where_the_result_keeps_them(
    core: Core, colour: int, media_type: str, model: str
) -> None:
    source = png(picture(24, 32, CHANNELS[colour]).astype(np.uint16) * 257, 16, colour)
    first = Rung(model="upscaled-x4-faithful", most_px=24 * 32, most_deep_px=24 * 32 - 1)
    result = core.upscale(source, 2, ladder=(first, Rung(model="upscaled-x2")))
    assert (result.media_type, result.model) == (media_type, model)


def test_work_is_cancelled_before_it_begins_and_at_each_tile(core: Core) -> None:
    source = save(picture(24, 32), "PNG")
    early, late = Cancellation(), Cancellation()
    early.cancel()
    with pytest.raises(Cancelled):
        core.upscale(source, 2, cancellation=early)
    reported: list[int] = []

    def on_tile(done: int, total: int) -> None:
        reported.append(done)
        late.cancel()

    with pytest.raises(Cancelled):
        core.upscale(source, 2, on_tile=on_tile, cancellation=late)
    assert reported == [0]
    assert core.upscale(source, 2).width_px == 64


def test_an_unknown_model_of_the_settings_is_refused_at_the_start(settings: Settings) -> None:
    wrong = settings.model_copy(update={"model_x2": "nonsense"})
    with pytest.raises(UnknownModel), open_core(wrong, decoders=0):
        pass


@pytest.mark.slow
def test_a_model_whose_speed_is_stored_is_not_run_again_at_the_next_start(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a slow one would make every start long."""
    monkeypatch.setattr(ladder, "VIVID", {4: ("upscaled-x2",)})
    with_budget = settings.model_copy(update={"auto_budget_s": 10})
    slow = {"upscaled-x2", "upscaled-x4"}
    runs: list[list[str]] = []
    for _ in range(2):
        batches = CountedBatches()
        with open_core(
            with_budget, scales=(4,), is_warm=True, counter=batches, decoders=0
        ) as opened:
            assert opened.seconds_per_px.keys() == {*slow, "upscaled-x4-faithful"}
            assert min(opened.seconds_per_px.values()) > 0
        runs.append([done.engine.info.model for done in batches])
    assert slow < set(runs[0])
    assert not slow & set(runs[1])
    assert runs[1].count("upscaled-x4-faithful") == 2


def test_a_result_is_passed_on_before_the_memory_of_its_pixels_is_freed(
    core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    canvases: list[ref[NDArray[np.uint8]]] = []
    make_canvas = Content.make_canvas

    def note_canvas(content: Content, rgb: Pixels, gain: int, tiles: Sequence[Tile]) -> Canvas:
        canvas = make_canvas(content, rgb, gain, tiles)
        canvases.append(ref(np.asarray(canvas.pixels, np.uint8)))
        return canvas

    monkeypatch.setattr(Content, "make_canvas", note_canvas)
    passed_on: list[Result] = []

    class Sink:
        def write(self, piece: Piece, offset: int) -> None:
            assert not passed_on

        def end(self, result: Result) -> None:
            passed_on.append(result)
            assert all(canvas() is not None for canvas in canvases)

    result = core.upscale(save(picture(24, 32), "PNG"), 2, sink=Sink())
    assert passed_on == [result]
    assert [canvas() for canvas in canvases] == [None] * len(canvases) != []
