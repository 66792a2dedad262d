"""Train, and resume from the folder's checkpoint, bit for bit."""

import copy
import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from scripts.training import checkpoint
from scripts.training.batches import Batch, batches_from
from scripts.training.checkpoint import Run
from scripts.training.losses import loss_of
from scripts.training.pictures import Pictures
from scripts.training.recipe import Recipe
from upscaled_models.networks.plain import PlainNet

SAVE_EVERY_S = 60.0
LOG_EVERY_STEPS = 100
FIXED_SIDES: Final = {"head.weight": 1, "tail.weight": 0}
"""The axis of a weight that must be equally long to fit: a head's inputs, a tail's outputs."""


def begin(recipe: Recipe, start_from: nn.Module | None = None) -> Run:
    """Return a run at step 0, from a fresh network or from `start_from`'s fitting weights."""
    torch.manual_seed(recipe.seed)
    network = PlainNet(recipe.features, recipe.layers, recipe.scale, recipe.fold)
    if start_from is not None:
        _copy_fitting(network, start_from)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Run(recipe, 0, network, copy.deepcopy(network), _optimizer(network, recipe))


def resume(state: dict[str, Any], recipe: Recipe) -> Run:
    """Return the run of a stored state, under `recipe` (the stored one or an override)."""
    run = begin(recipe)
    run.step = state["step"]
    run.network.load_state_dict(state["network"])
    run.average.load_state_dict(state["average"])
    run.optimizer.load_state_dict(state["optimizer"])
    return run


def train(
    run: Run, pictures: Pictures, folder: Path, *, half: bool, until: int | None = None
) -> None:
    """Train to the recipe's last step, or to step `until`, saving about once a minute.

    `half` runs the convolutions in bfloat16. SIGTERM and SIGINT end it, saved, after the
    current step.
    """
    last = run.recipe.steps if until is None else min(until, run.recipe.steps)
    batches = batches_from(pictures, run.recipe, run.step)
    log_path = folder / "log.jsonl"
    saved_at = time.monotonic()
    with catch_signals() as is_asked_to_stop, log_path.open("a") as log:
        while run.step < last and not is_asked_to_stop():
            figures = take_step(run, next(batches), half=half)
            if run.step % LOG_EVERY_STEPS == 0:
                log.write(json.dumps({"step": run.step, "time": time.time(), **figures}) + "\n")
                log.flush()
            if time.monotonic() - saved_at > SAVE_EVERY_S:
                checkpoint.save(run, folder)
                saved_at = time.monotonic()
    checkpoint.save(run, folder)


def take_step(run: Run, batch: Batch, *, half: bool) -> dict[str, float]:
    """Do one step of Adam and of the moving average, and return its metrics."""
    recipe = run.recipe
    for group in run.optimizer.param_groups:
        group["lr"] = recipe.rate_at(run.step)
    x = (batch.inputs.float() / 255).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        output = run.network(x)
    loss, figures = loss_of(output.float(), batch.truths.float() / 255, batch.harms, recipe)
    run.optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(run.network.parameters(), recipe.clip_norm)
    run.optimizer.step()
    run.step += 1
    move_average(run.average, run.network, run.step, recipe.ema_decay)
    return {"loss": float(loss.detach()), **figures}


@torch.no_grad()
def move_average(average: nn.Module, network: nn.Module, step: int, decay: float) -> None:
    """Move the average of the weights towards them; in the first steps faster than by `decay`."""
    decay = min(decay, (1 + step) / (10 + step))
    averages: list[Tensor] = list(average.parameters())
    weights: list[Tensor] = list(network.parameters())
    torch._foreach_lerp_(averages, weights, 1 - decay)


def _optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    return torch.optim.Adam(network.parameters(), lr=recipe.rate, betas=(0.9, 0.99))


@torch.no_grad()
def _copy_fitting(network: nn.Module, other: nn.Module) -> None:
    """Copy the weights that fit: a x2 network starts from x4's trunk, a wider one from a narrower.

    A head fits where it reads as many differences, a tail where it gives as many results. Features
    that only the new network has are not read by the copied ones.
    """
    theirs = other.state_dict()
    for name, weight in network.state_dict().items():
        given, fixed = theirs.get(name), FIXED_SIDES.get(name)
        if given is None or (fixed is not None and given.shape[fixed] != weight.shape[fixed]):
            continue
        outputs, inputs = map(min, weight.shape[:2], given.shape[:2])
        weight[:outputs] = 0
        weight[:outputs, :inputs] = given[:outputs, :inputs]


@contextmanager
def catch_signals() -> Iterator[Callable[[], bool]]:
    """Yield a function that says whether SIGTERM or SIGINT came; neither ends the process."""
    asked: list[int] = []
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, lambda n, _: asked.append(n)) for number in numbers}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
