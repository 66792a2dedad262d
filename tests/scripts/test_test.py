import os

import pytest

from tests.scripts.conftest import Scripts


@pytest.fixture
def ready(scripts: Scripts) -> Scripts:
    """Scripts that are set up, so that only pytest is called."""
    scripts.add_python("python3")
    assert scripts.run("setup", "--dev").returncode == 0
    scripts.calls()
    return scripts


def test_the_slow_tests_are_left_out_and_the_others_run_side_by_side(ready: Scripts) -> None:
    ready.run("test")
    processes = min(os.sysconf("SC_NPROCESSORS_ONLN") + 3, 6)
    options = f"-n {processes} --dist loadfile --no-loadscope-reorder"
    assert ready.calls() == [f"-m pytest -m not slow {options}"]


def test_slow_runs_every_test(ready: Scripts) -> None:
    ready.run("test", "--slow", "-x")
    assert ready.calls() == ["-m pytest -x"]


def test_ci_runs_every_test(ready: Scripts) -> None:
    ready.environment["CI"] = "true"
    ready.run("test", "-x")
    assert ready.calls() == ["-m pytest -x"]


def test_arguments_are_passed_to_pytest_unchanged(ready: Scripts) -> None:
    ready.run("test", "-k", "a b", "tests/scripts")
    assert ready.calls() == ["-m pytest -m not slow -k a b tests/scripts"]


def test_failing_tests_fail_the_command(ready: Scripts) -> None:
    ready.environment["REFUSES"] = "pytest"
    assert ready.run("test").returncode == 1
