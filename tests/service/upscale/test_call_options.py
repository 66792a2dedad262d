import inspect
from typing import Any, Unpack, get_type_hints

import numpy as np
import pytest

from upscaled import Cancellation, OutputOptions, Upscaler
from upscaled.config import load_settings
from upscaled.errors import InvalidParameter
from upscaled.image.output import NO_CHOICE, OutputChoice
from upscaled.upscale.call_options import (
    ImageOptions,
    Tracking,
    check_options,
    choose_output,
    name_model,
    require_no_file_options,
)

SETTINGS = load_settings({})


def test_no_option_is_no_choice() -> None:
    assert choose_output({}) == NO_CHOICE
    require_no_file_options(NO_CHOICE)


def test_each_option_is_accepted_at_both_ends_of_its_range() -> None:
    least: OutputOptions = {"quality": 1, "max_side_px": 1, "width_px": 1, "height_px": 1}
    assert choose_output(least) == OutputChoice("", 1, 1, 1, 1)
    largest: Any = np.int64(20_000)
    sides: OutputOptions = {"max_side_px": largest, "width_px": largest, "height_px": largest}
    most: OutputOptions = {**sides, "format": "avif", "quality": 100, "metadata": "keep-all"}
    assert choose_output(most) == OutputChoice("avif", 100, 20_000, 20_000, 20_000, "keep-all")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"quality": 0}, "quality must be a whole number from 1 to 100"),
        ({"quality": 101}, "quality must be a whole number from 1 to 100"),
        ({"quality": True}, "quality must be a whole number from 1 to 100"),
        ({"quality": "90"}, "quality must be a whole number from 1 to 100"),
        ({"width_px": 0}, "width_px must be a whole number from 1 to 20000"),
        ({"height_px": 20_001}, "height_px must be a whole number from 1 to 20000"),
        ({"max_side_px": 9.5}, "max_side_px must be a whole number from 1 to 20000"),
        ({"format": "gif"}, "format 'gif': must be one of jpeg, png, webp, avif, lossless"),
        ({"format": False}, "format False: must be one of jpeg"),
        ({"metadata": False}, "metadata False: must be one of keep, keep-all"),
        ({"metadata": "all"}, "metadata 'all': must be one of keep, keep-all"),
        ({"format": "png", "quality": 90}, "quality: png has no quality"),
    ],
)
def test_a_value_out_of_range_is_refused(options: Any, text: str) -> None:
    with pytest.raises(InvalidParameter, match=text):
        choose_output(options)


@pytest.mark.parametrize("options", [{"format": "webp"}, {"quality": 90}, {"metadata": "keep"}])
def test_pixels_have_no_options_of_a_file(options: Any) -> None:
    with pytest.raises(InvalidParameter, match="format, quality, metadata are those of a file"):
        require_no_file_options(choose_output(options))


@pytest.mark.parametrize("denoise", [-0.1, 1.1, float("nan"), "x", [0.5], True])
def test_a_strength_of_denoising_is_a_number_from_0_to_1(denoise: Any) -> None:
    with pytest.raises(InvalidParameter, match=r"denoise .*: must be a number from 0 to 1"):
        name_model({"model": "realesr-general-x4v3", "denoise": denoise}, SETTINGS, 4)


@pytest.mark.parametrize("denoise", [0, 1.0, np.float32(0.5), np.float64(0.5), np.int64(1)])
def test_a_strength_of_denoising_may_be_a_number_of_numpy(denoise: Any) -> None:
    """It is accepted, and the weights are looked for."""
    with pytest.raises(InvalidParameter, match=r"the weights of realesr-general-x4v3"):
        name_model({"model": "realesr-general-x4v3", "denoise": denoise}, SETTINGS, 4)


@pytest.mark.parametrize(("model", "name"), [(None, ""), ("", ""), ("auto", ""), ("a", "a")])
def test_none_and_auto_name_the_upscalers_own_model(model: str | None, name: str) -> None:
    assert name_model({"model": model}, SETTINGS, 4) == name


def test_an_argument_of_another_type_is_refused_by_its_name() -> None:
    wrong: Any = 3
    with pytest.raises(TypeError, match="model must be the name of a model, not int"):
        name_model({"model": wrong}, SETTINGS, 4)
    with pytest.raises(
        TypeError, match=r"on_progress must be a function of \(done, total\), not int"
    ):
        Tracking(wrong)
    with pytest.raises(TypeError, match="cancellation must be a Cancellation, not int"):
        Tracking(None, wrong)
    assert Tracking(print, Cancellation()) != Tracking() == Tracking(None, None)


@pytest.mark.parametrize(
    "method", ["upscale", "upscale_bytes", "upscale_file", "many", "upscale_async"]
)
def test_every_method_accepts_the_same_options_of_an_image(method: str) -> None:
    parameters = inspect.signature(getattr(Upscaler, method)).parameters
    assert parameters["options"].annotation == Unpack[ImageOptions]


def test_an_option_that_there_is_not_is_refused_by_its_name() -> None:
    check_options(dict.fromkeys(get_type_hints(ImageOptions)))  # type: ignore[arg-type]
    wrong: Any = {"width": 100}
    with pytest.raises(TypeError, match="got an unexpected keyword argument 'width'"):
        check_options(wrong)


def test_the_help_of_the_main_method_explains_each_option() -> None:
    explained = Upscaler.upscale.__doc__ or ""
    assert all(f"\n            {name}: " in explained for name in get_type_hints(ImageOptions))
    assert get_type_hints(OutputOptions).items() < get_type_hints(ImageOptions).items()
