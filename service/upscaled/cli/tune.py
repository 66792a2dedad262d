"""`upscaled tune`: measure the fastest way to run each model on this machine."""

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from upscaled.cli.console import fail, print_columns
from upscaled.config import SCALES, Settings, load_settings
from upscaled.pool.devices import plan_workers, resolve_devices
from upscaled_models.errors import ModelError

if TYPE_CHECKING:
    from upscaled_models.autotune.cache import Choice, Measured


def run(
    model: Annotated[
        str | None,
        typer.Argument(metavar="MODEL", help="One model; without it, those that the service uses."),
    ] = None,
    is_again: Annotated[
        bool, typer.Option("--again", help="Measure even if the fastest is settled.")
    ] = False,
    is_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Measure which way of running a model is fastest on this machine, and keep it.

    What a start had no time for, or chose without measuring on a busy machine, is settled here. A
    running service adopts it in its next idle minute.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in a worker; before torch is loaded
    settings = plan_workers(resolve_devices(load_settings()))[0]  # the others' cores are alike
    from upscaled.upscale.engines import is_tuned

    if not is_tuned(settings):
        raise fail(
            "UPSCALED_PRECISION=exact or UPSCALED_TUNING=false leave nothing to measure", status=2
        )
    try:
        results = [_tune_one(settings, name, is_again=is_again) for name in _names(settings, model)]
    except ModelError as error:
        raise fail(error, status=2) from None
    if is_json:
        document = [
            {"model": each.model, "is_new": each.is_new} | each.choice.model_dump()
            for each in results
        ]
        typer.echo(json.dumps(document, indent=2, ensure_ascii=False))
        return
    for at, result in enumerate(results):
        if at:
            typer.echo()
        _show(result)


@dataclass(frozen=True, slots=True)
class Tuned:
    """Choice of the autotuner for a model; `is_new` if it was measured now."""

    model: str
    choice: "Choice"
    is_new: bool


def _names(settings: Settings, model: str | None) -> list[str]:
    """Return the named model, or all models of both scales."""
    if model is not None:
        return [model]
    from upscaled.upscale.ladder import plan_ladder

    plans = [plan_ladder(settings, scale) for scale in SCALES]
    return list(dict.fromkeys(model for plan in plans for model in plan.models))


def _tune_one(settings: Settings, name: str, *, is_again: bool) -> Tuned:
    from upscaled.upscale.engines import open_autotuner
    from upscaled.upscale.speed import forget_speed
    from upscaled_models.autotune.race import drive

    autotuner = open_autotuner(settings, name)
    stored = autotuner.find_choice()
    if stored is not None and stored.is_settled and not is_again:
        return Tuned(name, stored, is_new=False)
    typer.echo(f"measuring {name}", err=True)
    choice, _ = drive(autotuner.measure())
    autotuner.store(choice)
    # The next start works out anew which pictures the model is for.
    forget_speed(settings, autotuner.model.spec)
    return Tuned(name, choice, is_new=True)


def _show(tuned: Tuned) -> None:
    choice = tuned.choice
    when = f"measured now, in {choice.tuned_s:.0f} s" if tuned.is_new else "measured before"
    typer.echo(f"{tuned.model}: {choice.label}, windows of {choice.window_px} px ({when})")
    rows = [_row(each, at == 0) for at, each in enumerate(choice.measured)]
    head = ("CANDIDATE", "S/MEGAPIXEL", "COST RATIO", "99 % INTERVAL", "PAIRS", "RESULT")
    print_columns([head, *rows])
    for name, reason in choice.refused.items():
        typer.echo(f"refused: {name}: {reason}")
    if choice.unsettled:
        typer.echo(f"not settled: {choice.unsettled}")


def _row(measured: "Measured", is_chosen: bool) -> tuple[str, ...]:
    ratio, interval = "", ""
    if measured.ratio is not None:
        ratio = f"{measured.ratio:.2f} of {measured.against}"
    if measured.low is not None and measured.high is not None:
        interval = f"{measured.low:.2f} to {measured.high:.2f}"
    result = "chosen" if is_chosen else "settled" if measured.is_settled else "not settled"
    pairs = str(measured.pairs) if measured.pairs else ""
    return measured.name, f"{measured.ns_per_px / 1000:.2f}", ratio, interval, pairs, result
