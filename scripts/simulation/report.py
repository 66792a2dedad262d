"""Show a sizing as plain tables, and as one JSON document."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np

from scripts.simulation.plan import Costs, Pictures, Plan
from scripts.simulation.queueing import Simulated
from scripts.simulation.sizing import Sizing

_SMALL_SHARE: Final = 50
"""Small pictures are those of no more work than the median's."""

_BALANCER: Final = {
    "random": "nginx: random",
    "turns": "nginx: its default",
    "two by count": "nginx: random two least_conn",
    "two by pixels": "no balancer can see pixels: the gain there would be",
}


def to_document(plan: Plan, costs: Costs, pictures: Pictures, sizing: Sizing) -> dict[str, Any]:
    """Return all figures as JSON values."""
    return {
        "images_per_hour": plan.images_per_hour,
        "wanted_p95_s": plan.p95_s,
        "spread": plan.spread,
        "mean_megapixels": _round(float(pictures.px.mean()) / 1e6),
        "mean_work_s": _round(sizing.mean_work_s),
        "seconds_by_px": [[px, _round(seconds)] for px, seconds in sorted(costs.seconds_by_px)],
        "front_end_s": {
            "each": _round(costs.front_end_s[0]),
            "per_megabyte": _round(costs.front_end_s[1]),
        },
        "machines": sizing.machines,
        "front_ends": sizing.machines,
        "workers": sizing.machines * plan.machine.workers,
        "load": _round(sizing.load),
        "spreads": {name: _describe(each) for name, each in sizing.by_spread.items()},
        "limits": {each.resource: round(each.images_per_hour) for each in sizing.limits},
        "memory_gib": {"at_most": _round(sizing.memory_gib), "machine": plan.machine.memory_gib},
        "results_kept_gib": _round(sizing.kept_gib),
        "breaks_first": name_first(plan, sizing),
    }


def name_first(plan: Plan, sizing: Sizing) -> str:
    """Return what gives first: memory where a machine has too little, else what is full first."""
    if sizing.memory_gib > plan.machine.memory_gib:
        return "memory"
    return sizing.limits[0].resource


def to_table(document: dict[str, Any]) -> str:
    """Write the document as Markdown."""
    return "\n".join(_lines(document))


def _lines(document: dict[str, Any]) -> Iterator[str]:
    wanted = document["images_per_hour"]
    yield (
        f"{wanted:,.0f} pictures an hour of {document['mean_megapixels']:.3g} megapixels in the "
        f"mean, {document['mean_work_s']:.3g} s of a worker each; p95 within "
        f"{document['wanted_p95_s']:g} s."
    )
    yield (
        f"Needed: {document['machines']} machines, each one front end, "
        f"{document['workers']} workers in all, {document['load']:.0%} busy."
    )
    memory = document["memory_gib"]
    yield (
        f"Memory of a machine: at most {memory['at_most']:.1f} GiB of {memory['machine']:g}. "
        f"Results kept for an hour: {document['results_kept_gib']:.1f} GiB."
    )
    yield f"Breaks first: {document['breaks_first']}."
    yield from ("", *_table(("resource", "full at pictures an hour", "used"), _limits(document)))
    columns = ("spread over machines", "p50", "p95", "p99", "p99 of small", "refused", "balancer")
    rows = [
        (
            name,
            *(f"{each[figure]:.3g} s" for figure in ("p50_s", "p95_s", "p99_s", "small_p99_s")),
            f"{each['refused_share']:.2%}",
            _BALANCER[name],
        )
        for name, each in document["spreads"].items()
    ]
    yield from ("", *_table(columns, rows))


def _limits(document: dict[str, Any]) -> list[tuple[str, ...]]:
    wanted = document["images_per_hour"]
    return [
        (name, f"{limit:,.0f}", f"{wanted / limit:.0%}")
        for name, limit in document["limits"].items()
    ]


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield "|" + "---|" * len(columns)
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _describe(simulated: Simulated) -> dict[str, float]:
    small_s = float(np.percentile(simulated.work_s, _SMALL_SHARE))
    return {
        **{f"p{percent}_s": _round(simulated.percentile_s(percent)) for percent in (50, 95, 99)},
        "small_p99_s": _round(simulated.percentile_s(99, work_within_s=small_s)),
        "refused_share": _round(simulated.refused_share),
    }


def _round(value: float) -> float:
    return float(f"{value:.4g}")
