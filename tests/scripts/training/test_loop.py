"""The loop: a run that was stopped and resumed equals one that was not, bit for bit."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from scripts.training import checkpoint
from scripts.training.batches import Batches
from scripts.training.checkpoint import Run
from scripts.training.loop import begin, resume, train
from scripts.training.pictures import Pictures
from scripts.training.recipe import Recipe

TINY = Recipe(2, features=6, layers=1, batch=2, patch_px=12, steps=8, warmup_steps=2, pages=1)


@pytest.fixture
def pictures() -> Pictures:
    rng = np.random.default_rng(3)
    photos = [rng.integers(0, 256, (64, 70, 3), dtype=np.uint8) for _ in range(3)]
    return Pictures(tuple(photos), (photos[0],))


def weights_of(run: Run) -> list[torch.Tensor]:
    return [*run.network.parameters(), *run.average.parameters()]


def test_a_resumed_run_equals_an_unbroken_one_bit_for_bit(
    tmp_path: Path, pictures: Pictures
) -> None:
    unbroken = begin(TINY)
    train(unbroken, pictures, tmp_path_of(tmp_path, "a"), half=False)
    broken = tmp_path_of(tmp_path, "b")
    train(begin(TINY), pictures, broken, half=False, until=3)
    state = checkpoint.read(broken)
    assert state is not None
    assert state["step"] == 3
    resumed = resume(state, checkpoint.stored_recipe(state, Recipe))
    train(resumed, pictures, broken, half=False)
    assert resumed.step == 8
    pairs = list(zip(weights_of(unbroken), weights_of(resumed), strict=True))
    assert all(torch.equal(first, second) for first, second in pairs)


def test_training_changes_the_weights_and_lowers_the_loss(
    tmp_path: Path, pictures: Pictures
) -> None:
    run, fresh = begin(TINY), begin(TINY)
    train(run, pictures, tmp_path, half=True)
    pairs = zip(run.network.parameters(), fresh.network.parameters(), strict=True)
    assert not any(torch.equal(first, second) for first, second in pairs)


def test_a_termination_signal_ends_the_run_saved(tmp_path: Path, pictures: Pictures) -> None:
    run = begin(Recipe(**{**vars(TINY), "steps": 100000}))
    before = signal.getsignal(signal.SIGTERM)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    train(run, pictures, tmp_path, half=False)
    state = checkpoint.read(tmp_path)
    assert state is not None
    assert 0 < state["step"] == run.step < 100000
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.slow
def test_a_log_line_carries_the_step_and_its_figures(tmp_path: Path, pictures: Pictures) -> None:
    recipe = Recipe(**{**vars(TINY), "steps": 100})
    train(begin(recipe), pictures, tmp_path, half=False)
    line = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[0])
    assert line["step"] == 100
    assert line["loss"] >= line["error"] > 0


def test_the_batch_of_a_step_depends_on_seed_and_step_alone(pictures: Pictures) -> None:
    batches = Batches(pictures, TINY)
    first, again = batches[5], Batches(pictures, TINY)[5]
    assert torch.equal(first.inputs, again.inputs)
    assert torch.equal(first.truths, again.truths)
    other = Batches(pictures, Recipe(**{**vars(TINY), "seed": 2}))[5]
    assert not torch.equal(first.inputs, batches[6].inputs)
    assert not torch.equal(first.inputs, other.inputs)


def test_a_new_network_copies_the_fitting_weights_of_another_scale() -> None:
    donor = begin(Recipe(**{**vars(TINY), "scale": 4, "seed": 9})).network
    taken = begin(TINY, donor).network
    own, given = taken.state_dict(), donor.state_dict()
    assert torch.equal(own["body.0.weight"], given["body.0.weight"])
    assert own["tail.weight"].shape == (12, 6, 3, 3)


def test_a_wider_folded_network_begins_as_the_narrower_one_that_it_started_from() -> None:
    narrow = begin(Recipe(**{**vars(TINY), "fold": 2, "seed": 9})).network.eval()
    wide = begin(Recipe(**{**vars(TINY), "fold": 2, "features": 9}), narrow).network.eval()
    pixels = torch.rand(1, 3, 12, 16)
    assert wide.state_dict()["head.weight"].shape == (9, 48, 3, 3)
    with torch.no_grad():
        assert torch.allclose(wide(pixels), narrow(pixels), atol=1e-6)


def test_weights_for_differences_of_another_fold_are_not_copied() -> None:
    donor = begin(TINY).network
    folded = Recipe(**{**vars(TINY), "fold": 2})
    taken, fresh = (begin(folded, each).network.state_dict() for each in (donor, None))
    assert torch.equal(taken["head.weight"], fresh["head.weight"])
    assert torch.equal(taken["body.0.weight"], donor.state_dict()["body.0.weight"])


def tmp_path_of(tmp_path: Path, name: str) -> Path:
    folder = tmp_path / name
    folder.mkdir()
    return folder
