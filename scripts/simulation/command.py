"""The command line of scripts/capacity."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from scripts.simulation import access_log
from scripts.simulation.database_load import measure_database
from scripts.simulation.measurement import (
    BYTES_PER_PX,
    FRONT_END_S,
    measure_costs,
    read_bench,
)
from scripts.simulation.plan import (
    DEFAULT_MIX,
    BadPlan,
    Costs,
    Pictures,
    draw_mix,
    read_document,
    read_plan,
)
from scripts.simulation.report import to_document, to_table
from scripts.simulation.sizing import Unreachable, size

EXAMPLE = """\
images_per_hour = 60_000
p95_s = 2.0
spread = "two by count"     # or random, turns, two by pixels

[machine]
workers = 1                 # GPUs, or one for all cores
slots = 8                   # UPSCALED_JOBS_PER_WORKER: 4, on CUDA 8
memory_gib = 32

[seconds]                   # side of a picture in px: seconds alone on a worker
64 = 0.005
512 = 0.035
1500 = 0.26

[[mix]]
share = 0.9
side_px = [64, 800]
scale = 4

[[mix]]
share = 0.1
side_px = [800, 1500]
scale = 4
"""


def main(arguments_given: list[str] | None = None) -> None:
    """Print the tables, and one JSON document as the last line."""
    parser = _parser()
    arguments = parser.parse_args(arguments_given)
    if arguments.example:
        print(EXAMPLE, end="")
        return
    try:
        document = work_out(arguments)
    except (BadPlan, Unreachable, OSError) as error:
        sys.exit(f"capacity: {error}")
    print(to_table(document))
    print(json.dumps(document))


def work_out(arguments: argparse.Namespace) -> dict[str, Any]:
    """Read or measure what is asked for, and return all figures."""
    given = dict(read_document(arguments.plan)) if arguments.plan else {}
    for name in ("images_per_hour", "p95_s"):
        if getattr(arguments, name) is not None:
            given[name] = getattr(arguments, name)
    observed = None
    if arguments.log:
        with arguments.log.open() as lines:
            observed = access_log.read_log(lines)
        given.setdefault("images_per_hour", observed.images_per_hour)
    if arguments.database:
        rate = measure_database(arguments.database)
        given["machine"] = {**given.get("machine", {}), "database_images_per_s": rate}
    plan = read_plan(given)
    costs = _costs(given, arguments)
    pictures: Pictures
    if observed is not None:
        pictures = observed.pictures
    else:
        pictures = draw_mix(given.get("mix", DEFAULT_MIX), plan.seed, costs.bytes_per_px)
    return to_document(plan, costs, pictures, size(plan, costs, pictures))


def _costs(given: dict[str, Any], arguments: argparse.Namespace) -> Costs:
    """Take the seconds of the plan, else those of the report, else measure them."""
    if "seconds" in given:
        try:
            pairs = [(float(side) ** 2, float(each)) for side, each in given["seconds"].items()]
        except (AttributeError, TypeError, ValueError):
            raise BadPlan("seconds: each line is the side in px = seconds") from None
        if not pairs or min(min(pair) for pair in pairs) <= 0:
            raise BadPlan("seconds: at least one side, and all above 0")
        return Costs(pairs, FRONT_END_S, BYTES_PER_PX)
    if arguments.bench:
        last = arguments.bench.read_text().splitlines()[-1:]
        try:
            report = json.loads("".join(last))
        except ValueError:
            raise BadPlan(f"{arguments.bench}: its last line is no JSON") from None
        return Costs(read_bench(report), FRONT_END_S, BYTES_PER_PX)
    return measure_costs(arguments.model)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/capacity",
        description="Work out machines, front ends and workers for a mix of pictures.",
    )
    add = parser.add_argument
    add("--plan", type=Path, metavar="FILE", help="TOML: load, wish, machine, mix, seconds")
    add("--example", action="store_true", help="print an example of such a file")
    add("--images-per-hour", type=float, metavar="N", help="instead of the plan's")
    add("--p95-s", type=float, metavar="S", help="instead of the plan's: wanted, in seconds")
    log = (
        "access log of the service, JSON lines: its pictures are the mix, its busiest hour the load"
    )
    add("--log", type=Path, metavar="FILE", help=log)
    bench = "output of `scripts/bench http`: seconds of each size; default: measured now"
    add("--bench", type=Path, metavar="FILE", help=bench)
    add("--model", default="auto", help="the model that is measured; default: auto")
    database = "URL of an empty PostgreSQL database: the images that it takes are measured"
    add("--database", metavar="URL", help=database)
    return parser


if __name__ == "__main__":
    main()
