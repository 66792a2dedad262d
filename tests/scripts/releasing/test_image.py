"""An image of a release, built for real from an empty base."""

import json
import shutil
import tarfile
from pathlib import Path

import pytest

from scripts.releasing.cutting import CannotRelease
from scripts.releasing.image import ImageSource, build_image, find_builder
from tests.debian import require_programs

ROOT = Path(__file__).resolve().parents[3]
DOCKERFILE = """\
FROM scratch
ARG UPSCALED_VERSION=
ARG UPSCALED_REVISION=
LABEL org.opencontainers.image.version="${UPSCALED_VERSION}" \\
      org.opencontainers.image.revision="${UPSCALED_REVISION}"
COPY file /file
"""


@pytest.fixture
def source(tmp_path: Path) -> ImageSource:
    root = tmp_path / "root"
    (root / "docker").mkdir(parents=True)
    (root / "docker" / "Dockerfile").write_text(DOCKERFILE)
    (root / "file").write_text("content")
    return ImageSource(root, "1.2.3", "abc", committed_at_s=1_600_000_000)


@pytest.fixture
def builder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    require_programs("buildah")
    monkeypatch.setenv("BUILDAH_ISOLATION", "chroot")
    stores = [f"--root={tmp_path / 'store'}", f"--runroot={tmp_path / 'run'}"]
    return ["buildah", "--storage-driver=vfs", *stores]


def test_the_digest_names_the_image_in_the_file(
    source: ImageSource, builder: list[str], tmp_path: Path
) -> None:
    digest = build_image(source, tmp_path, builder)
    with tarfile.open(tmp_path / "upscaled-1.2.3-cpu.image.tar") as archive:
        (manifest,) = json.load(_open(archive, "manifest.json"))
        labels = json.load(_open(archive, manifest["Config"]))["config"]["Labels"]
    assert f"sha256:{Path(manifest['Config']).stem}" == digest
    assert (tmp_path / "upscaled-1.2.3-cpu.image-id").read_text() == f"{digest}\n"
    assert manifest["RepoTags"][0].endswith("upscaled:1.2.3-cpu")
    assert labels["org.opencontainers.image.version"] == "1.2.3"
    assert labels["org.opencontainers.image.revision"] == "abc"


def _open(archive: tarfile.TarFile, name: str) -> tarfile.ExFileObject:
    member = archive.extractfile(name)
    assert isinstance(member, tarfile.ExFileObject)
    return member


def test_a_build_that_fails_makes_no_release(
    source: ImageSource, builder: list[str], tmp_path: Path
) -> None:
    (source.root / "file").unlink()
    with pytest.raises(CannotRelease, match="buildah failed"):
        build_image(source, tmp_path, builder)


def test_a_machine_without_a_builder_is_shown_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _program: None)
    with pytest.raises(CannotRelease, match="--without-image"):
        find_builder()


def test_the_dockerfile_declares_the_arguments_that_a_release_passes() -> None:
    text = (ROOT / "docker" / "Dockerfile").read_text()
    for argument in ("UPSCALED_VERSION", "UPSCALED_REVISION", "ACCELERATOR"):
        assert f"\nARG {argument}=" in text
        assert f"${argument}" in text or f"${{{argument}}}" in text
