import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from scripts.benchmark.contestant import Absent, Entry, Runner, open_contestant
from scripts.benchmark.weights import add_random_compact


@pytest.mark.slow
def test_a_contestant_in_a_process_of_its_own_runs_and_shows_its_picture(tmp_path: Path) -> None:
    weights = add_random_compact(tmp_path, num_conv=2, num_feat=8)
    entry = Entry(
        "ours:Ours",
        str(tmp_path),
        weights.model,
        "exact",
        height_px=24,
        width_px=20,
        is_tuned=False,
    )
    with open_contestant(entry) as runner:
        assert runner.label == "torch float32"
        assert runner.gflop > 0
        runner.run_once()
        (run,) = runner.runs
    assert run.seconds > 0
    assert run.picture is not None
    assert run.picture.shape == (96, 80, 3)


def test_a_contestant_that_crashes_is_left_out_with_its_reason() -> None:
    unknown = Entry("unknown:Unknown")  # type: ignore[arg-type]
    with pytest.raises(Absent, match="ModuleNotFoundError"), open_contestant(unknown):
        pass


@pytest.mark.slow
def test_a_contestant_runs_on_no_more_cores_than_it_may() -> None:
    entry = Entry("others:Matmul", precision="float32", is_tuned=False, cores=1)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as executor:
        Runner(entry, executor).run_once()
        assert len(executor.submit(os.sched_getaffinity, 0).result()) == 1
