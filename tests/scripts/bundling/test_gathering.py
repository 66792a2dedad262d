"""Real pip and real uv, with nothing to take wheels from but a folder."""

import re
from pathlib import Path

import pytest

from scripts.bundling.gathering import ROOT, build_upscaled, download, resolve, take_torch
from scripts.bundling.target import Accelerator, CannotBundle, Target
from tests.scripts.bundling.making import make_wheel
from upscaled_models.files import hash_file

TARGET = Target("3.12", (2, 28), "aarch64", "cpu")
INTEL = Target("3.11", (2, 28), "x86_64", "cpu")
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
    assert wheel.name == f"part-1.0-{BINARY.format(27)}.whl"


def test_a_requirement_without_a_wheel_is_named(shelf: Path, taken: Path) -> None:
    make_wheel(shelf, "part", tags=BINARY.format(39))
    with pytest.raises(CannotBundle, match=r"No matching distribution found for part==1\.0"):
        download(["part==1.0"], TARGET, taken)


@pytest.mark.slow
def test_a_package_locked_by_hash_is_accepted_in_no_other_file(shelf: Path, taken: Path) -> None:
    path = make_wheel(shelf, "part")
    pinned = f"part==1.0 --hash=sha256:{hash_file(path)} --hash=sha256:{'0' * 64}"
    assert [wheel.name for wheel in download([pinned], TARGET, taken)] == [path.name]
    make_wheel(shelf, "part", "Summary: not what was locked")
    (taken / path.name).unlink()
    with pytest.raises(CannotBundle, match="DO NOT MATCH THE HASHES"):
        download([pinned], TARGET, taken)
    assert list(taken.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("accelerator", ["cpu", "cuda"])
def test_torch_is_chosen_in_the_build_for_the_accelerator(
    shelf: Path, taken: Path, accelerator: Accelerator
) -> None:
    """Though the CPU build, named 9+cpu, counts as newer than 9."""
    make_wheel(shelf, "torch", version="9+cpu")
    make_wheel(shelf, "torch", "Requires-Dist: nvidia-cublas==1", version="9")
    make_wheel(shelf, "nvidia-cublas", version="1")
    target = Target("3.11", (2, 28), "x86_64", accelerator)
    needs = take_torch("torch==9", [], target, taken)
    (wheel,) = taken.iterdir()
    assert wheel.name.split("-")[1] == {"cpu": "9+cpu", "cuda": "9"}[accelerator]
    assert wheel.resolve().as_uri() in needs["torch"].requirement
    assert ("nvidia-cublas" in needs) == (accelerator == "cuda")


@pytest.mark.slow
def test_a_torch_of_the_wrong_build_is_not_used(shelf: Path, taken: Path) -> None:
    make_wheel(shelf, "torch", version="9")
    with pytest.raises(CannotBundle, match=r"torch-9-py3-none-any\.whl is not a build for cuda"):
        take_torch("torch==9", [], Target("3.11", (2, 28), "x86_64", "cuda"), taken)


def test_each_place_that_has_no_torch_is_named(
    shelf: Path, taken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_INDEX_URL", "http://127.0.0.1:9/torch")
    with pytest.raises(CannotBundle, match=r"\n  http://127\.0\.0\.1:9/torch: ERROR: "):
        take_torch("torch==9", [], INTEL, taken)


@pytest.fixture
def locks(tmp_path: Path) -> Path:
    """Make a folder of locks: part 1.0 by one hash, and for CUDA driver 1.0 by another."""
    folder = tmp_path / "locks"
    folder.mkdir()
    for lock, name, digit in [("", "part", "1"), ("-cuda", "driver", "2")]:
        text = f"--require-hashes\n{name}==1.0 \\\n    --hash=sha256:{digit * 64}\n"
        (folder / f"requirements{lock}.lock").write_text(text)
    return folder


def _choose(shelf: Path, root: str, target: Target) -> set[str]:
    """Name all that `root`, a requirement of a wheel on the shelf, needs without any lock."""
    return set(resolve([root], target, locks_dir=shelf)) - {"root"}


def test_what_is_locked_is_chosen_in_that_version_and_by_its_hash(shelf: Path, locks: Path) -> None:
    for version in ("1.0", "1.1"):
        for name in ("part", "driver", "another"):
            make_wheel(shelf, name, version=version)
    needs = resolve(["part", "driver", "another"], INTEL, locks)
    assert needs["part"].requirement.split() == ["part==1.0", "\\", f"--hash=sha256:{'1' * 64}"]
    assert f"driver==1.0 \\\n    --hash=sha256:{'2' * 64}" in needs["driver"].requirement
    assert needs["another"].requirement.startswith("another==1.1 ")
    assert hash_file(shelf / "another-1.1-py3-none-any.whl") in needs["another"].requirement


def test_packages_are_fetched_from_the_index_that_pip_is_configured_with(
    shelf: Path, locks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = make_wheel(shelf, "another")
    page = shelf / "another" / "index.html"
    page.parent.mkdir()
    page.write_text(f'<a href="../{wheel.name}#sha256={hash_file(wheel)}">{wheel.name}</a>')
    for name in ("PIP_NO_INDEX", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_INDEX_URL", shelf.as_uri())
    needs = resolve(["another"], INTEL, locks)
    assert needs["another"].requirement.startswith("another==1.0 ")
    assert hash_file(wheel) in needs["another"].requirement


def test_another_build_of_torch_may_need_another_version(shelf: Path, locks: Path) -> None:
    path = make_wheel(shelf, "driver", version="2.0")
    needs = resolve(["driver>=2"], INTEL, locks)
    assert needs["driver"].requirement.split()[0] == "driver==2.0"
    assert hash_file(path) in needs["driver"].requirement
    assert "2" * 64 not in needs["driver"].requirement


def test_a_locked_version_that_another_package_does_not_allow_is_refused(
    shelf: Path, locks: Path
) -> None:
    make_wheel(shelf, "root", "Requires-Dist: part>1.0")
    for version in ("1.0", "1.1"):
        make_wheel(shelf, "part", version=version)
    with pytest.raises(CannotBundle, match=r"root depend on part>1\.0 and part==1\.0"):
        resolve(["root"], INTEL, locks)


def test_a_locked_version_that_is_not_there_is_refused(shelf: Path, locks: Path) -> None:
    make_wheel(shelf, "part", version="1.1")
    with pytest.raises(CannotBundle, match=r"part==1\.0"):
        resolve(["part"], INTEL, locks)


@pytest.mark.slow
def test_dependencies_are_resolved_for_the_target_not_for_this_machine(shelf: Path) -> None:
    make_wheel(
        shelf,
        "root",
        "Requires-Dist: always",
        "Requires-Dist: on-arm; platform_machine == 'aarch64'",
        "Requires-Dist: on-windows; sys_platform == 'win32'",
        "Requires-Dist: on-new; python_version >= '3.13'",
    )
    for name in ("always", "on-arm", "on-windows", "on-new"):
        make_wheel(shelf, name)
    assert _choose(shelf, "root", INTEL) == {"always"}
    new_arm = Target("3.13", (2, 28), "aarch64", "cpu")
    assert _choose(shelf, "root", new_arm) == {"always", "on-arm", "on-new"}


@pytest.mark.slow
def test_requirements_of_extras_are_included_only_if_requested(shelf: Path) -> None:
    make_wheel(shelf, "root", "Provides-Extra: heic", "Requires-Dist: decoder; extra == 'heic'")
    make_wheel(shelf, "decoder")
    assert _choose(shelf, "root", INTEL) == set()
    assert _choose(shelf, "root[heic]", INTEL) == {"decoder"}


def test_dependencies_of_extras_are_resolved_with_what_requires_them(shelf: Path) -> None:
    make_wheel(shelf, "root", "Provides-Extra: db", "Requires-Dist: driver[fast]; extra == 'db'")
    extra = ["Provides-Extra: fast", "Requires-Dist: core; extra == 'fast'"]
    make_wheel(shelf, "driver", *extra, "Requires-Dist: driver[fast]; extra == 'fast'")
    make_wheel(shelf, "core")
    needs = resolve(["root[db]"], INTEL, locks_dir=shelf)
    by = {name: need.by for name, need in needs.items()}
    assert by == {"root": (), "driver": ("root",), "core": ("driver",)}


def test_the_locks_pin_what_extras_need_too() -> None:
    locked = "".join(lock.read_text() for lock in ROOT.glob("requirements*.lock"))
    pins = set(re.findall("^([a-z0-9-]+)==", locked, re.MULTILINE))
    assert {"torch", "fastapi", "uvloop", "psycopg-binary", "pillow-heif", "pip", "triton"} < pins


def test_the_locks_give_every_file_s_hash_but_torch_s() -> None:
    locked = "".join(lock.read_text() for lock in ROOT.glob("requirements*.lock"))
    blocks = re.findall(r"^([a-z0-9-]+)==[^\n]*((?:\n +--hash=.*)*)", locked, re.MULTILINE)
    assert [name for name, hashes in blocks if not hashes] == ["torch"]
    assert dict(blocks)["numpy"].count("--hash=sha256:") > 20


@pytest.mark.slow
def test_the_same_tree_gives_the_same_wheel(tmp_path: Path) -> None:
    hashes = set()
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        hashes.add(hash_file(build_upscaled(tmp_path / name)))
    assert len(hashes) == 1
