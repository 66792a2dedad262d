import dataclasses
import json
from pathlib import Path

import pytest

from upscaled_models.errors import ModelError
from upscaled_models.registry import (
    name_strength,
    official_models,
    read_default_models,
    round_strength,
    split_strength,
)

BY_NAME = {spec.name: spec for spec in official_models()}

# The releases of xinntao/Real-ESRGAN, each size and hash confirmed by two independent listings.
PUBLISHED_FILES = """
realesrgan-x4plus v0.1.0/RealESRGAN_x4plus.pth 67040989 \
4fa0d38905f75ac06eb49a7951b426670021be3018265fd191d2125df9d682f1
realesrgan-x2plus v0.2.1/RealESRGAN_x2plus.pth 67061725 \
49fafd45f8fd7aa8d31ab2a22d14d91b536c34494a5cfe31eb5d89c2fa266abb
realesrnet-x4plus v0.1.1/RealESRNet_x4plus.pth 67040989 \
a820b9bde89a874d7599d545567308ce6c128fc8754a53208eda016d40aa81df
realesrgan-x4plus-anime-6b v0.2.2.4/RealESRGAN_x4plus_anime_6B.pth 17938799 \
f872d837d3c90ed2e05227bed711af5671a6fd1c9f7d7e91c911a61f155e99da
realesr-animevideov3 v0.2.5.0/realesr-animevideov3.pth 2504012 \
b8a8376811077954d82ca3fcf476f1ac3da3e8a68a4f4d71363008000a18b75d
realesr-general-x4v3 v0.2.5.0/realesr-general-x4v3.pth 4885111 \
8dc7edb9ac80ccdc30c3a5dca6616509367f05fbc184ad95b731f05bece96292
realesr-general-wdn-x4v3 v0.2.5.0/realesr-general-wdn-x4v3.pth 4885111 \
1641f8c4464b9f097c9fdda5589273713f67cf59f3d909e0bd688f0cee269dca
"""


def test_the_official_models_are_the_seven_published_files() -> None:
    url = "https://github.com/xinntao/Real-ESRGAN/releases/download/"
    rows = [line.split() for line in PUBLISHED_FILES.strip().splitlines()]
    assert [
        (spec.name, spec.url, spec.size_bytes, spec.sha256, spec.licence)
        for spec in official_models()
    ] == [
        (name, url + tag_and_file, int(size_bytes), sha256, "BSD-3-Clause")
        for name, tag_and_file, size_bytes, sha256 in rows
    ]
    assert all(spec.url.endswith("/" + spec.file_name) for spec in official_models())


@pytest.mark.parametrize(
    ("name", "native_scale", "multiple_px", "radius_px", "halo_px"),
    [
        ("realesrgan-x4plus", 4, 1, 349, 60),
        ("realesrgan-x2plus", 2, 2, 698, 120),
        ("realesrnet-x4plus", 4, 1, 349, 60),
        ("realesrgan-x4plus-anime-6b", 4, 1, 94, 44),
        ("realesr-animevideov3", 4, 1, 18, 18),
        ("realesr-general-x4v3", 4, 1, 34, 34),
        ("realesr-general-wdn-x4v3", 4, 1, 34, 34),
    ],
)
def test_a_models_demands_on_a_tiler_follow_from_its_shape(
    name: str, native_scale: int, multiple_px: int, radius_px: int, halo_px: int
) -> None:
    spec = BY_NAME[name]
    assert (spec.native_scale, spec.multiple_px) == (native_scale, multiple_px)
    assert (spec.radius_px, spec.halo_px) == (radius_px, halo_px)
    assert spec.halo_px % spec.multiple_px == 0


def test_cost_falls_with_the_fold_and_not_with_the_scale() -> None:
    """Twice 3000 px costs as four times 1500 px, and an odd side a whole trunk pixel at its end."""
    folded = BY_NAME["realesrgan-x2plus"]
    assert folded.trunk_pixels(65, 64) == 33 * 32
    for name, spec in BY_NAME.items():
        assert spec.trunk_pixels(100, 100) == (2500 if spec is folded else 10_000), name
        assert spec.trunk_pixels(1500, 1500) == folded.trunk_pixels(3000, 3000) or spec is folded


def test_only_the_general_model_has_a_denoise_partner() -> None:
    partners = {spec.name: spec.wdn for spec in official_models() if spec.wdn}
    assert partners == {"realesr-general-x4v3": BY_NAME["realesr-general-wdn-x4v3"]}


def test_a_spec_cannot_be_changed_and_can_be_a_key() -> None:
    spec = official_models()[0]
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.sha256 = "0" * 64  # type: ignore[misc]
    assert {spec: 1}[spec] == 1


def test_shipped_models_are_read_from_their_manifest(default_dir: Path) -> None:
    (spec,) = read_default_models(default_dir)
    assert (spec.name, spec.source, spec.family) == ("upscaled-x4", "default", "plain")
    assert (spec.native_scale, spec.multiple_px, spec.radius_px, spec.halo_px) == (4, 1, 4, 4)
    assert spec.trunk_pixels(64, 65) == 64 * 65
    assert spec.keeps_colour
    assert not any(official.keeps_colour for official in official_models())


def test_the_manifest_is_parsed_once_a_process(default_dir: Path) -> None:
    specs = read_default_models(default_dir)
    (default_dir / "manifest.json").unlink()
    assert read_default_models(default_dir) is specs


@pytest.mark.parametrize(
    "manifest",
    [
        None,
        b"",
        b"{",
        b"[]",
        b'{"upscaled-x4": []}',
        b'{"upscaled-x4": {"file": "a.safetensors"}}',
        b'{"second": {"same_as": "upscaled-x4"}}',
        b'{"second": {"same_as": "second"}}',
        json.dumps(
            {
                "upscaled-x4": {
                    "file": "a",
                    "sha256": "0" * 64,
                    "size_bytes": "8",
                    "family": "plain",
                    "shape": {"features": 4, "layers": 1, "scale": 4},
                    "licence": "Apache-2.0",
                }
            }
        ).encode(),
    ],
)
def test_a_damaged_manifest_is_an_error_that_names_it(
    manifest: bytes | None, tmp_path: Path
) -> None:
    path = tmp_path / "manifest.json"
    if manifest is not None:
        path.write_bytes(manifest)
    with pytest.raises(ModelError, match=r"manifest\.json: not a readable manifest"):
        read_default_models(tmp_path)


def test_every_official_name_is_its_own() -> None:
    specs = official_models()
    assert len({spec.name for spec in specs}) == len({spec.file_name for spec in specs}) == 7


@pytest.mark.parametrize(
    ("strength", "rounded"),
    [(0, 0), (0.049, 0), (0.05, 0.1), (0.25, 0.3), (0.4, 0.4), (0.949, 0.9), (0.95, 1), (1, 1)],
)
def test_a_strength_is_rounded_to_the_nearest_tenth(strength: float, rounded: float) -> None:
    assert round_strength(strength) == rounded


def test_model_and_strength_are_read_back_from_their_joined_name() -> None:
    names = [name_strength("some-model", tenths / 10) for tenths in range(11)]
    assert (names[0], names[4], names[10]) == ("some-model@0.0", "some-model@0.4", "some-model@1.0")
    for tenths, name in enumerate(names):
        assert split_strength(name) == ("some-model", tenths / 10)
    assert name_strength("some-model@0.4", 0.9) == "some-model@0.9"


@pytest.mark.parametrize("name", ["a", "", "a@", "a@2", "a@0.45", "a@1.1", "@0.4", "a@0.4@0.5"])
def test_no_other_name_gives_a_strength(name: str) -> None:
    assert split_strength(name) == (name, None)


@pytest.mark.parametrize("strength", [-0.001, 1.001, float("nan")])
def test_a_strength_out_of_range_has_no_name(strength: float) -> None:
    with pytest.raises(ValueError, match="strength"):
        name_strength("a", strength)
