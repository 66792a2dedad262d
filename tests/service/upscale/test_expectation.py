from collections.abc import Iterator
from dataclasses import replace

import pytest

from upscaled.config import load_settings
from upscaled.image.types import Header
from upscaled.upscale.core import Core
from upscaled.upscale.expectation import expect_upscale
from upscaled.upscale.model_choice import Rung
from upscaled.upscale.opening import open_core
from upscaled.upscale.result import Expectation, decide_local_output

S_PER_PX = {"upscaled-x2": 1e-6, "upscaled-x4-faithful": 1e-3}


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Core]:
    """A core whose two models take a known time for a pixel."""
    folder = tmp_path_factory.mktemp("data")
    settings = load_settings({}, data_dir=folder, device="cpu", precision="exact", threads=1)
    with open_core(settings, scales=(2,), decoders=0, is_warm=True) as opened:
        assert opened.seconds_per_px["upscaled-x2"] > 0, "a warm core knows its models' speed"
        yield replace(opened, seconds_per_px=S_PER_PX)


def expect(core: Core, ladder: tuple[Rung, ...], width_px: int, height_px: int) -> Expectation:
    header = Header("PNG", width_px, height_px, has_alpha=False)
    output = decide_local_output(header, 2, keeps_depth=False)
    return expect_upscale(replace(core, ladders={2: ladder}), header, 2, output)


def test_an_image_of_one_window_takes_its_pixels(core: Core) -> None:
    expected = expect(core, (Rung(model="upscaled-x2"),), 60, 40)
    assert expected.models == ("upscaled-x2",)
    assert expected.device_s == pytest.approx(60 * 40 * 1e-6)


def test_the_halos_of_several_windows_count(core: Core) -> None:
    expected = expect(core, (Rung(model="upscaled-x2"),), 3000, 2000)
    assert 6.0 < expected.device_s < 9.0


def test_a_tempered_model_takes_the_time_of_both(core: Core) -> None:
    tempered = Rung(model="upscaled-x4-faithful", tempered_with="upscaled-x2")
    expected = expect(core, (tempered,), 60, 40)
    assert expected.models == ("upscaled-x4-faithful",)
    assert expected.device_s == pytest.approx(60 * 40 * (1e-3 + 1e-6))


def test_where_the_pixels_decide_the_slower_model_counts(core: Core) -> None:
    ladder = (Rung(model="upscaled-x4-faithful", harmed_only=True), Rung(model="upscaled-x2"))
    expected = expect(core, ladder, 60, 40)
    both = ("upscaled-x4-faithful", "upscaled-x2")
    assert expected.models == both
    assert expected.device_s == pytest.approx(60 * 40 * 1e-3)
