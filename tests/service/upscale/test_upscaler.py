"""The Python API, with the models that ship."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from queue import Queue
from typing import Any

import numpy as np
import pytest
from PIL import Image as PillowImage

import upscaled
from tests.running import clean_environment
from tests.service.image.camera_files import camera_file
from tests.service.image.samples import picture, save
from upscaled import (
    Cancellation,
    Cancelled,
    InternalError,
    InvalidParameter,
    MalformedImage,
    ModelError,
    OutputOptions,
    ResolutionTooHigh,
    SettingsError,
    Upscaler,
)
from upscaled.config import Settings, load_settings
from upscaled.upscale import any_image, upscaler
from upscaled.upscale.any_image import Call, upscale_any
from upscaled.upscale.core import Core
from upscaled.upscale.opening import open_core

OPTIONS: dict[str, Any] = {"device": "cpu", "precision": "exact", "threads": 1}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder in which the speed of the slow model is measured once."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def up(data_dir: Path) -> Iterator[Upscaler]:
    with Upscaler(data_dir=data_dir, max_in_flight=3, **OPTIONS) as opened:
        yield opened


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("axes", [(), (1,), (2,), (3,), (4,)])
def test_an_array_becomes_an_array_of_its_layout_and_depth(
    up: Upscaler, scale: int, kind: type, axes: tuple[int, ...]
) -> None:
    chance = np.random.default_rng(0)
    pixels: Any = chance.integers(0, np.iinfo(kind).max, (12, 16, *axes), kind)
    result = up.upscale(pixels, scale)
    assert (result.shape, result.dtype) == ((12 * scale, 16 * scale, *axes), pixels.dtype)
    assert result.flags.c_contiguous


def test_an_array_gives_the_pixels_that_its_file_gives(up: Upscaler) -> None:
    pixels = picture(24, 32, channels=4)
    file = up.upscale(save(pixels, "PNG"), 2)
    assert np.array_equal(up.upscale(pixels, 2), np.asarray(PillowImage.open(BytesIO(file))))


@pytest.mark.parametrize(
    ("mode", "becomes"),
    [
        *((mode, mode) for mode in ("L", "LA", "RGB", "RGBA", "I;16")),
        *((mode, "RGB") for mode in ("1", "P", "CMYK")),
    ],
)
def test_a_pillow_image_becomes_one_with_its_resolution(
    up: Upscaler, mode: str, becomes: str
) -> None:
    source = PillowImage.new("I;16", (16, 12)) if mode == "I;16" else None
    source = source or PillowImage.fromarray(picture(12, 16)).convert(mode)
    source.info["dpi"] = (72, 72)
    result = up.upscale(source, 2)
    assert (result.mode, result.size, result.info["dpi"]) == (becomes, (32, 24), (144.0, 144.0))


def test_a_transparent_palette_and_an_orientation_of_a_pillow_image_are_kept(up: Upscaler) -> None:
    palette = PillowImage.fromarray(picture(12, 16)).convert("P")
    palette.info["transparency"] = 0
    assert up.upscale(palette, 2).mode == "RGBA"
    turned = PillowImage.fromarray(picture(12, 16))
    turned.getexif()[0x0112] = 6
    assert up.upscale(turned, 2).size == (24, 32)


@pytest.mark.parametrize(("scale", "model"), [(2, "upscaled-x2-faithful"), (4, "upscaled-x4")])
def test_bytes_become_bytes_or_a_result_with_model_and_timings(
    up: Upscaler, scale: int, model: str
) -> None:
    source = save(picture(24, 32), "PNG")
    result = up.upscale_bytes(source, scale)
    assert up.upscale(source, scale) == result.data
    assert (result.media_type, result.model) == ("image/jpeg", model)
    assert (result.label, result.tempered_with) == ("torch float32", "")
    assert result.timings.network_s > 0
    with PillowImage.open(BytesIO(result.data)) as image:
        assert image.size == (32 * scale, 24 * scale) == (result.width_px, result.height_px)


def test_bytes_and_files_become_what_is_chosen(up: Upscaler, tmp_path: Path) -> None:
    source = tmp_path / "shot.jpg"
    source.write_bytes(camera_file("JPEG"))
    options: OutputOptions = {
        "format": "webp", "quality": 80, "max_side_px": 100, "metadata": "keep",
    }  # fmt: skip
    result = up.upscale_bytes(source.read_bytes(), 2, **options)
    assert (result.media_type, result.width_px, result.height_px) == ("image/webp", 100, 75)
    written = up.upscale_file(source, scale=2, **options)
    assert written == tmp_path / "shot-x2.webp"
    assert written.read_bytes() == result.data
    with PillowImage.open(written) as image:
        assert image.getexif().get_ifd(0x8769)[0xA002] == 100


def test_a_file_is_written_beside_its_source_into_a_folder_or_by_name(
    up: Upscaler, tmp_path: Path
) -> None:
    opaque, clear = tmp_path / "a.png", tmp_path / "b.png"
    opaque.write_bytes(save(picture(12, 16), "PNG"))
    clear.write_bytes(save(picture(12, 16, channels=4), "PNG"))
    (tmp_path / "out").mkdir()
    assert up.upscale_file(opaque, scale=2) == tmp_path / "a-x2.jpg"
    assert up.upscale_file(clear, to=tmp_path / "out") == tmp_path / "out" / "b-x4.png"
    assert up.upscale_file(str(opaque), to=str(tmp_path / "named.jpeg")).is_file()
    with pytest.raises(InvalidParameter, match=r"a\.png is a JPEG, not c\.png"):
        up.upscale_file(opaque, to=tmp_path / "c.png")
    with pytest.raises(FileNotFoundError):
        up.upscale_file(tmp_path / "absent.png")
    names = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert names == {"a.png", "b.png", "a-x2.jpg", "b-x4.png", "named.jpeg"}


def test_many_yields_in_order_with_several_in_flight_and_draws_no_further_ahead(
    up: Upscaler,
) -> None:
    drawn = 0

    def draw() -> Iterator[np.ndarray[Any, np.dtype[np.uint8]]]:
        nonlocal drawn
        for level in range(20):
            drawn += 1
            yield np.full((48 if level % 3 else 8, 8, 3), level * 10, np.uint8)

    for at, result in enumerate(up.many(draw(), scale=2)):
        assert (result == at * 10).all()
        assert drawn <= at + 3
    assert drawn == 20


def test_many_raises_a_pictures_error_in_its_place_or_yields_it(up: Upscaler) -> None:
    good = save(picture(8, 8), "PNG")
    sources = [good, b"no picture", good]
    results = up.many(sources, 2)
    assert next(results)
    with pytest.raises(MalformedImage):
        next(results)
    kinds = [type(each) for each in up.many(sources, 2, return_exceptions=True)]
    assert kinds == [bytes, MalformedImage, bytes]


def test_many_yields_what_was_drawn_before_the_images_raise(up: Upscaler) -> None:
    def draw(second: bytes) -> Iterator[bytes]:
        yield save(picture(8, 8), "PNG")
        yield second
        raise FileNotFoundError

    results = up.many(draw(save(picture(8, 8), "PNG")), 2)
    assert [type(next(results)), type(next(results))] == [bytes, bytes]
    with pytest.raises(FileNotFoundError):
        next(results)
    with_errors = up.many(draw(b"no picture"), 2, return_exceptions=True)
    assert [type(next(with_errors)), type(next(with_errors))] == [bytes, MalformedImage]
    with pytest.raises(FileNotFoundError):
        next(with_errors)


ONE_IMAGE: list[Any] = [
    picture(8, 8),
    picture(8, 8)[..., 0],
    PillowImage.new("L", (8, 8)),
    save(picture(8, 8), "PNG"),
    "photo.jpg",
]


@pytest.mark.parametrize("image", ONE_IMAGE, ids=lambda image: type(image).__name__)
def test_many_refuses_one_image_whose_rows_or_bytes_it_would_take_for_images(
    up: Upscaler, image: Any
) -> None:
    with pytest.raises(TypeError, match=r"is one image: many\(\) takes a list"):
        up.many(image, 2)


def test_many_refuses_wrong_arguments_before_it_draws_an_image(up: Upscaler) -> None:
    wrong: Any = up.many
    for images in (None, 5):
        with pytest.raises(TypeError, match=r"many\(\) takes a list of images, not"):
            wrong(images, 2)
    for name in ("on_progress", "cancellation", "nonsense"):
        with pytest.raises(TypeError, match=rf"got an unexpected keyword .*'{name}'"):
            wrong([], 2, **{name: None})
    with pytest.raises(InvalidParameter, match="must be 2 or 4"):
        up.many([], 3)
    with pytest.raises(InvalidParameter, match="quality must be"):
        up.many([], 2, quality=0)
    with pytest.raises(RuntimeError, match="is not open"):
        Upscaler().many([])
    stack = np.zeros((2, 8, 8, 3), np.uint8)
    assert [each.shape for each in up.many(stack, 2)] == [(16, 16, 3)] * 2


@pytest.mark.parametrize(
    "options",
    [
        {"format": "webp"},
        {"quality": 5},
        {"max_side_px": 20},
        {"width_px": 30},
        {"height_px": 30},
        {"metadata": "keep"},
        {"model": "upscaled-x4"},
    ],
    ids=lambda options: next(iter(options)),
)
async def test_each_method_passes_each_option_on(
    up: Upscaler, tmp_path: Path, options: dict[str, Any]
) -> None:
    source = camera_file("JPEG")
    result = up.upscale(source, 2, **options)
    assert result != up.upscale(source, 2)
    assert up.upscale_bytes(source, 2, **options).data == result
    assert list(up.many([source], 2, **options)) == [result]
    assert await up.upscale_async(source, 2, **options) == result
    (tmp_path / "a.jpg").write_bytes(source)
    (tmp_path / "out").mkdir()
    assert (
        up.upscale_file(tmp_path / "a.jpg", tmp_path / "out", 2, **options).read_bytes() == result
    )


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> "Queue[str]":
    """What becomes of the images in the threads of the upscaler, as it happens."""
    names = Queue[str]()

    def upscale(core: Core, call: Call, image: object) -> object:
        names.put("begun")
        try:
            result: object = upscale_any(core, call, image)
        except Cancelled:
            names.put("cancelled")
            raise
        names.put("done")
        return result

    monkeypatch.setattr(any_image, "upscale_any", upscale)
    return names


def test_leaving_many_early_uses_its_cancellation(
    up: Upscaler, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Call] = []

    def upscale(core: Core, call: Call, image: object) -> object:
        calls.append(call)
        return image

    monkeypatch.setattr(any_image, "upscale_any", upscale)
    results = iter(up.many([picture(8, 8)] * 9, 2))
    next(results)
    cancellation = calls[0].tracking.cancellation
    assert cancellation is not None
    assert not cancellation.is_cancelled
    del results
    assert cancellation.is_cancelled


@pytest.mark.slow
def test_leaving_many_early_cancels_what_is_in_flight(up: Upscaler, steps: "Queue[str]") -> None:
    results = up.many((picture(side, side) for side in (8, 600, 600, 600)), 4)
    next(results)
    seen = sorted(steps.get(timeout=60) for _ in range(4))
    assert seen == ["begun", "begun", "begun", "done"]
    results.close()  # type: ignore[attr-defined]
    assert [steps.get(timeout=60) for _ in range(2)] == ["cancelled"] * 2


def test_async_pictures_run_beside_each_other_and_report_in_the_event_loop(up: Upscaler) -> None:
    reports: list[tuple[int, int, int]] = []

    def note(done: int, total: int) -> None:
        reports.append((done, total, threading.get_ident()))

    async def run() -> list[int]:
        work = [up.upscale_async(picture(8, 8 * at), 2, on_progress=note) for at in (1, 2, 3)]
        return [each.shape[1] for each in await asyncio.gather(*work)]

    assert asyncio.run(run()) == [16, 32, 48]
    assert {thread for _, _, thread in reports} == {threading.get_ident()}
    assert (1, 1) in {(done, total) for done, total, _ in reports}


def test_a_cancelled_task_cancels_its_work(up: Upscaler, steps: "Queue[str]") -> None:
    async def run() -> None:
        begun = asyncio.Event()
        task = asyncio.create_task(
            up.upscale_async(picture(600, 600), 4, on_progress=lambda *_: begun.set())
        )
        await asyncio.wait_for(begun.wait(), 60)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert [steps.get(timeout=60) for _ in range(2)] == ["begun", "cancelled"]


def test_progress_is_reported_and_work_is_cancelled_from_elsewhere(up: Upscaler) -> None:
    cancellation = Cancellation()
    seen: list[tuple[int, int]] = []

    def note(done: int, total: int) -> None:
        seen.append((done, total))
        cancellation.cancel()

    with pytest.raises(Cancelled):
        up.upscale(picture(24, 32), 2, on_progress=note, cancellation=cancellation)
    assert seen == [(0, 1)]


def test_threads_share_one_upscaler(up: Upscaler) -> None:
    with ThreadPoolExecutor(4) as pool:
        images = [np.full((8, 8, 3), level, np.uint8) for level in range(0, 240, 20)]
        results = list(pool.map(lambda image: up.upscale(image, 2), images))
    assert [int(each[0, 0, 0]) for each in results] == list(range(0, 240, 20))


FORKED = """
import os, sys
import numpy as np
from upscaled import Upscaler

up = Upscaler(data_dir=sys.argv[1], device="cpu", precision="exact", threads=1, scales=(2,))
image = np.zeros((8, 8, 3), np.uint8)
with up:
    up._shared._stack.callback(print, "ended", flush=True)
    many, begun = up.many([image], 2), up.many([image] * 2, 2)
    next(begun)
    child = os.fork()
    if not child:
        for use in (lambda: up.upscale(image, 2), lambda: next(many), lambda: next(begun)):
            try:
                use()
            except RuntimeError as error:
                print(error, flush=True)
        up.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    print(up.upscale(image, 2).shape)
"""


@pytest.mark.slow
def test_a_fork_is_refused_and_does_no_harm(tmp_path: Path) -> None:
    """It has none of the threads: it would wait for ever. What it closes, it does not end."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKED, str(tmp_path)],
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.stdout.splitlines() == [
        *["the upscaler was opened in another process: open one in each"] * 3,
        "(16, 16, 3)",
        "ended",
    ], done.stderr


@pytest.mark.parametrize("scale", [3, True, 2.0, "2", None, 10**9])
@pytest.mark.parametrize("kind", ["array", "file", "damaged file"])
def test_another_scale_is_refused(up: Upscaler, kind: str, scale: Any) -> None:
    array = np.zeros((8, 8, 3), np.uint8)
    images = {"array": array, "file": save(array, "PNG"), "damaged file": b"no picture"}
    image: Any = images[kind]
    with pytest.raises(InvalidParameter, match=f"^scale {scale!r}: must be 2 or 4"):
        up.upscale(image, scale)


@pytest.mark.parametrize("kind", [np.uint8, np.int64])
def test_a_scale_may_be_a_number_of_numpy_of_any_size(up: Upscaler, kind: Any) -> None:
    assert up.upscale(np.zeros((70, 8, 3), np.uint8), kind(4)).shape == (280, 32, 3)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((8, 8, 3)),
        np.zeros((8, 8, 5), np.uint8),
        np.zeros((0, 8, 3), np.uint8),
        np.zeros(8, np.uint8),
        np.zeros((2, 8, 8, 3), np.uint8),
    ],
)
def test_an_array_of_another_shape_or_type_is_refused(up: Upscaler, array: Any) -> None:
    with pytest.raises(InvalidParameter, match="is no picture"):
        up.upscale(array)


def test_each_error_has_its_type(up: Upscaler) -> None:
    with pytest.raises(InvalidParameter, match="must be 2 or 4"):
        up.upscale(picture(8, 8), 3)
    with pytest.raises(InvalidParameter, match="no model 'nonsense'"):
        up.upscale(picture(8, 8), 2, model="nonsense")
    with pytest.raises(MalformedImage):
        up.upscale(save(picture(24, 32), "PNG")[:-60], 2)
    with pytest.raises(ResolutionTooHigh, match="longer than 20000 px"):
        up.upscale(np.zeros((1, 5001, 3), np.uint8))
    with pytest.raises(TypeError, match=r"str is no array.*; for a file, use upscale_file"):
        up.upscale("photo.jpg")  # type: ignore[type-var]
    for source in (picture(8, 8), "photo.jpg"):
        with pytest.raises(TypeError, match=r"upscale_bytes\(\) takes the bytes of a file, not"):
            up.upscale_bytes(source)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="is not open"):
        Upscaler().upscale(picture(8, 8), 2)


def test_wrong_settings_are_refused_by_their_names(tmp_path: Path) -> None:
    with pytest.raises(SettingsError):
        Upscaler(jpeg_quality=101)
    with pytest.raises(SettingsError, match=r"jpg_quality=9: there is no such.*mean jpeg_quality"):
        Upscaler(jpg_quality=9)
    for model in (None, 3):
        with pytest.raises(SettingsError, match=f"model={model}: must be the name of a model"):
            Upscaler(model)  # type: ignore[arg-type]
    for scales in ((3,), (2, 3), (), 2, "24", [[2]]):
        with pytest.raises(SettingsError, match=r"scales=.*: must be some of"):
            Upscaler(scales=scales)  # type: ignore[arg-type]
    for most in (-1, 1.5, "2", True):
        with pytest.raises(SettingsError, match=r"max_in_flight=.*: must be a whole number"):
            Upscaler(max_in_flight=most)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="no model 'nonsense'"):
        Upscaler("nonsense", data_dir=tmp_path, **OPTIONS).open()
    with pytest.raises(SettingsError, match=r"^model='realesrnet-x4plus'"):
        Upscaler("realesrnet-x4plus", data_dir=tmp_path, **OPTIONS).open()


def test_the_environment_is_read_only_by_load_settings(
    monkeypatch: pytest.MonkeyPatch, data_dir: Path
) -> None:
    monkeypatch.setenv("UPSCALED_JPEG_QUALITY", "1")
    source = save(picture(48, 48), "PNG")
    sizes = []
    settings = load_settings(data_dir=data_dir, **OPTIONS)
    for up in (Upscaler(data_dir=data_dir, **OPTIONS), Upscaler.from_settings(settings)):
        with up:
            sizes.append(len(up.upscale(source, 2)))
    assert sizes[1] < sizes[0]


def test_scales_may_be_any_iterable(tmp_path: Path) -> None:
    scales: Any = (scale for scale in (np.uint8(2),))
    with Upscaler(scales=scales, data_dir=tmp_path, **OPTIONS) as up:
        assert up.upscale(np.zeros((70, 8, 3), np.uint8), 2).shape == (140, 16, 3)
        with pytest.raises(InvalidParameter, match="scale 4: must be 2"):
            up.upscale(np.zeros((8, 8, 3), np.uint8))


def test_an_upscaler_may_be_opened_again(tmp_path: Path) -> None:
    up = Upscaler(data_dir=tmp_path, scales=(2,), **OPTIONS)
    for _ in range(2):
        with up.open():
            assert up.upscale(picture(8, 8), 2).shape == (16, 16, 3)
    with pytest.raises(RuntimeError):
        up.upscale(picture(8, 8), 2)


def test_many_that_is_drawn_from_after_the_end_says_that_nothing_is_open(tmp_path: Path) -> None:
    with Upscaler(data_dir=tmp_path, scales=(2,), **OPTIONS) as up:
        results = up.many([picture(8, 8)], 2)
        later = up.many([picture(8, 8)], 2)
    with pytest.raises(RuntimeError, match="is not open"):
        next(results)
    with up, pytest.raises(RuntimeError, match="was closed after this call, and opened again"):
        next(later)


def test_the_end_waits_for_calls_under_way_in_other_threads(tmp_path: Path) -> None:
    begun = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        with Upscaler(data_dir=tmp_path, scales=(2,), **OPTIONS) as up:
            call = pool.submit(up.upscale, picture(90, 90), 2, on_progress=lambda *_: begun.set())
            assert begun.wait(60)
        assert call.done()
    assert call.result().shape == (180, 180, 3)


def test_a_call_may_itself_close_the_upscaler_that_it_uses(tmp_path: Path) -> None:
    up = Upscaler(data_dir=tmp_path, scales=(2,), **OPTIONS).open()
    with pytest.raises(InternalError):
        up.upscale(picture(8, 8), 2, on_progress=lambda *_: up.close())


def test_threads_that_open_an_upscaler_at_once_share_one_core(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Settings] = []

    @contextmanager
    def open_and_note(settings: Settings, **options: Any) -> Iterator[Core]:
        made.append(settings)
        with open_core(settings, **options) as core:
            yield core

    monkeypatch.setattr(upscaler, "open_core", open_and_note)
    up = Upscaler(data_dir=tmp_path, scales=(2,), **OPTIONS)
    at_once = threading.Barrier(2)

    def open_at_once(_: int) -> Upscaler:
        at_once.wait()
        return up.open()

    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(open_at_once, range(2))) == [up, up]
    up.close()
    assert len(made) == 1


def test_every_public_name_is_there_and_no_other() -> None:
    assert {name for name in upscaled.__all__ if getattr(upscaled, name) is None} == set()
    assert set(upscaled.__all__) <= set(dir(upscaled))
    with pytest.raises(AttributeError, match="nonsense"):
        _ = upscaled.nonsense  # type: ignore[attr-defined]


def test_a_file_s_format_quality_and_size_are_chosen(up: Upscaler, tmp_path: Path) -> None:
    source = save(picture(24, 32), "PNG")
    large, small = (up.upscale(source, 2, format="webp", quality=quality) for quality in (95, 5))
    assert len(small) < len(large)
    with PillowImage.open(BytesIO(small)) as result:
        assert (result.format, result.size) == ("WEBP", (64, 48))
    encoded = up.upscale_bytes(source, 4, format="avif", max_side_px=100)
    assert (encoded.media_type, encoded.width_px, encoded.height_px) == ("image/avif", 100, 75)
    (tmp_path / "a.png").write_bytes(source)
    target = up.upscale_file(tmp_path / "a.png", tmp_path / "b.png", format="lossless", width_px=50)
    with PillowImage.open(target) as result:
        assert (result.format, result.size) == ("PNG", (50, 38))
    assert up.upscale_file(tmp_path / "a.png", format="webp").name == "a-x4.webp"
    with pytest.raises(InvalidParameter, match=r"not b\.png"):
        up.upscale_file(tmp_path / "a.png", tmp_path / "b.png", format="webp")


async def test_many_and_asynchronous_calls_have_the_same_options(up: Upscaler) -> None:
    source = save(picture(24, 32), "PNG")
    once = up.upscale(source, 2, format="png", height_px=30)
    assert await up.upscale_async(source, 2, format="png", height_px=30) == once
    assert list(up.many([source], 2, format="png", height_px=30)) == [once]


def test_pixels_in_memory_have_a_size_option_and_no_format(up: Upscaler) -> None:
    pixels = picture(24, 32)
    assert up.upscale(pixels, 2, max_side_px=40).shape == (30, 40, 3)
    assert up.upscale(PillowImage.fromarray(pixels), 2, width_px=40).size == (40, 30)
    with pytest.raises(InvalidParameter, match="are those of a file"):
        up.upscale(pixels, 2, format="webp")
    with pytest.raises(InvalidParameter, match="are those of a file"):
        up.upscale(pixels, 2, quality=90)
