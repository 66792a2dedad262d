import subprocess
import sys
from pathlib import Path

import pytest

from tests.models.autotune.fakes import FakeEngine, FakeMeter, candidate
from upscaled_models.autotune.race import drive
from upscaled_models.autotune.search import Search
from upscaled_models.autotune.space import IDLE, SearchSpace, Sizes
from upscaled_models.autotune.trial import MAX_DEATHS, Attempts

CRASHES = """
import os, sys
from pathlib import Path
from upscaled_models.autotune.trial import Attempts
with Attempts(Path(sys.argv[1])).trying("fake int8"):
    os._exit(4)
"""


def crash(path: Path) -> None:
    assert subprocess.run([sys.executable, "-c", CRASHES, str(path)], check=False).returncode == 4


def test_a_candidate_that_ends_the_process_again_and_again_is_tried_no_more(tmp_path: Path) -> None:
    path = tmp_path / "tried"
    deadly = FakeEngine()
    unfinished = []  # as a process that died left them
    for deaths in range(1, MAX_DEATHS + 1):
        trial = Attempts(path).trying("fake int8")
        trial.__enter__()
        unfinished.append(trial)
        assert Attempts(path).deaths("fake int8") == deaths

    float32 = candidate(FakeEngine(seconds_per_px=1e-6), "float32")
    space = SearchSpace(float32, [candidate(deadly)], Sizes((64,), (1,)))
    choice, _ = drive(Search(space, FakeMeter(), IDLE, Attempts(path)).run())

    assert deadly.shapes == []
    assert choice.refused == {"fake int8 on 1 threads": f"ended the process {MAX_DEATHS} times"}


@pytest.mark.slow
def test_the_crashes_of_a_candidate_that_succeeds_are_cleared(tmp_path: Path) -> None:
    """The process was stopped from outside, then."""
    path = tmp_path / "tried"
    crash(path)
    attempts = Attempts(path)
    with attempts.trying("other"):
        pass
    assert attempts.deaths("fake int8") == 1
    with attempts.trying("fake int8"):
        pass
    assert attempts.deaths("fake int8") == 0


def test_a_trial_that_returns_or_raises_is_not_counted_as_a_crash(tmp_path: Path) -> None:
    attempts = Attempts(tmp_path / "tried")

    with attempts.trying("good"):
        assert Attempts(tmp_path / "tried").deaths("good") == 1
    with pytest.raises(RuntimeError), attempts.trying("bad"):
        raise RuntimeError

    assert (attempts.deaths("good"), attempts.deaths("bad")) == (0, 0)


def test_attempts_in_a_folder_that_cannot_be_written_to_are_not_recorded(tmp_path: Path) -> None:
    attempts = Attempts(tmp_path / "absent" / "tried")
    with attempts.trying("good"):
        assert attempts.deaths("good") == 0
    attempts.forget()
