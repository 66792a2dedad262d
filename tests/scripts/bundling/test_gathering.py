"""Real pip, with nothing to take wheels from but a folder."""

from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from scripts.bundling.gathering import NotFound, build_upscaled, download, read_pins, take_torch
from scripts.bundling.target import Accelerator, Target
from tests.scripts.bundling.making import make_wheel
from upscaled_models.files import hash_file

TARGET = Target("3.12", (2, 28), "aarch64", "cpu")
BINARY = "cp312-cp312-manylinux_2_{}_aarch64"


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the only folder that pip takes wheels from: no index, no configuration."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.delenv("TORCH_INDEX_URL", raising=False)
    return folder


@pytest.fixture
def taken(tmp_path: Path) -> Path:
    folder = tmp_path / "taken"
    folder.mkdir()
    return folder


def test_wheels_are_downloaded_for_the_target(shelf: Path, taken: Path) -> None:
    make_wheel(shelf, "part", tags=BINARY.format(27))
    make_wheel(shelf, "part", tags=BINARY.format(39))
    make_wheel(shelf, "part", tags="cp311-cp311-manylinux_2_27_x86_64")
    (wheel,) = download(["part==1.0"], TARGET, taken)
    assert wheel.path.name == f"part-1.0-{BINARY.format(27)}.whl"


def test_a_requirement_without_a_wheel_is_named(shelf: Path, taken: Path) -> None:
    make_wheel(shelf, "part", tags=BINARY.format(39))
    with pytest.raises(NotFound, match=r"No matching distribution found for part==1\.0"):
        download(["part==1.0"], TARGET, taken)


def test_a_package_locked_by_hash_is_accepted_in_no_other_file(shelf: Path, taken: Path) -> None:
    path = make_wheel(shelf, "part")
    pinned = f"part==1.0 --hash=sha256:{hash_file(path)} --hash=sha256:{'0' * 64}"
    assert [wheel.path.name for wheel in download([pinned], TARGET, taken)] == [path.name]
    make_wheel(shelf, "part", "Summary: not what was locked")
    (taken / path.name).unlink()
    with pytest.raises(NotFound, match="DO NOT MATCH THE HASHES"):
        download([pinned], TARGET, taken)
    assert list(taken.iterdir()) == []


@pytest.mark.parametrize("accelerator", ["cpu", "cuda"])
def test_torch_is_taken_in_the_build_for_the_accelerator(
    shelf: Path, taken: Path, accelerator: Accelerator
) -> None:
    """Though the CPU build, named 9+cpu, counts as newer than 9."""
    make_wheel(shelf, "torch", version="9+cpu")
    make_wheel(shelf, "torch", "Requires-Dist: nvidia-cublas==1", version="9")
    target = Target("3.11", (2, 28), "x86_64", accelerator)
    wheel = take_torch("torch==9", target, taken)
    assert str(wheel.version) == {"cpu": "9+cpu", "cuda": "9"}[accelerator]
    assert [path.name for path in taken.iterdir()] == [wheel.path.name]


def test_a_torch_of_the_wrong_build_is_not_taken(shelf: Path, taken: Path) -> None:
    make_wheel(shelf, "torch", version="9")
    with pytest.raises(NotFound, match=r"torch-9-py3-none-any\.whl is not a build for cuda"):
        take_torch("torch==9", Target("3.11", (2, 28), "x86_64", "cuda"), taken)


def test_the_locks_pin_what_extras_need_too() -> None:
    pins = {str(name) for name in read_pins()}
    assert {"torch", "fastapi", "uvloop", "psycopg-binary", "pillow-heif", "pip", "triton"} < pins


def test_the_locks_give_every_file_s_hash_but_torch_s() -> None:
    pins = read_pins()
    assert [name for name, pin in pins.items() if not pin.hashes] == ["torch"]
    assert pins[canonicalize_name("numpy")].hashes.count("--hash=sha256:") > 20


@pytest.mark.slow
def test_the_same_tree_gives_the_same_wheel(tmp_path: Path) -> None:
    hashes = set()
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        hashes.add(build_upscaled(tmp_path / name).sha256)
    assert len(hashes) == 1
