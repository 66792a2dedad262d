"""The table of the page on several machines is what scripts/capacity works out."""

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from scripts.benchmark.effort import FULL
from scripts.simulation.measurement import BYTES_PER_PX, FRONT_END_S
from scripts.simulation.plan import DEFAULT_MIX, Costs, Machines, Plan, draw_mix
from scripts.simulation.report import to_document
from scripts.simulation.sizing import size

PAGE = Path(__file__).resolve().parents[3] / "service" / "upscaled" / "docs" / "machines.md"
MOST_IN_THE_QUICK_SUITE = 1_000


class Row(NamedTuple):
    """A row of the table, as it stands there."""

    device: str
    seconds: dict[float, float]
    images_per_hour: float
    p95_s: float
    machines: int
    busy: int
    p99_s: list[float]


def read_rows() -> list[Row]:
    lines = PAGE.read_text().splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith("| a machine |"))
    rows: list[Row] = []
    for line in lines[at + 2 :]:
        if not line.startswith("|"):
            return rows
        device, seconds, images, p95, machines, busy, p99, _ = line.strip("| ").split(" | ")
        pairs = re.findall(r"`(\d+) = ([\d.]+)`", seconds)
        row = Row(
            device if pairs else rows[-1].device,
            {float(side): float(each) for side, each in pairs} or rows[-1].seconds,
            float(images.replace(",", "")),
            float(p95.split()[0]),
            int(machines),
            int(busy.split()[0]),
            [float(each) for each in re.findall(r"[\d.]+", p99)],
        )
        rows.append(row)
    raise AssertionError("the table has no end")


ROWS = read_rows()


def work_out(row: Row) -> dict[str, Any]:
    is_gpu = row.device.startswith("H100")
    machine = Machines(slots=8, network_gbit_per_s=10) if is_gpu else Machines(slots=4)
    plan = Plan(images_per_hour=row.images_per_hour, p95_s=row.p95_s, machine=machine)
    pairs = [(side**2, each) for side, each in row.seconds.items()]
    costs = Costs(pairs, FRONT_END_S, BYTES_PER_PX)
    pictures = draw_mix(DEFAULT_MIX, plan.seed, BYTES_PER_PX)
    return to_document(plan, costs, pictures, size(plan, costs, pictures))


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(
            row,
            marks=pytest.mark.slow if row.images_per_hour > MOST_IN_THE_QUICK_SUITE else (),
            id=f"{row.device[:4]}-{row.images_per_hour:.0f}",
        )
        for row in ROWS
    ],
)
def test_a_row_of_the_table_equals_the_output_of_the_script(row: Row) -> None:
    document = work_out(row)
    assert document["machines"] == row.machines
    assert document["load"] * 100 == pytest.approx(row.busy, abs=0.6)
    p99_s = [each["p99_s"] for each in document["spreads"].values()]
    assert p99_s[-len(row.p99_s) :] == pytest.approx(row.p99_s, rel=0.05)


def test_the_table_has_rows_of_both_devices() -> None:
    assert {row.device[:4] for row in ROWS} == {"H100", "2 co"}


def test_seconds_alone_add_up_to_the_measured_rate_of_sixteen_clients() -> None:
    """Both figures are of the page of performance, as `scripts/bench http` measured them."""
    page = PAGE.with_name("performance.md").read_text()
    rows = re.findall(r"^\| (\d+)x.*, alone \|.* ([\d.]+) megapixels/s", page, re.MULTILINE)
    pairs = [(int(side) ** 2, (4 * int(side)) ** 2 / 1e6 / float(rate)) for side, rate in rows]
    assert [side for side, _ in rows] == [str(side) for side, _ in FULL.alone]
    costs = Costs(pairs, FRONT_END_S, BYTES_PER_PX)
    mean_s = costs.work_s(np.array(FULL.mixed_px, dtype=float) ** 2).mean()
    (rate,) = re.findall(
        r"^\| 16 clients of mixed sizes \| .* ([\d.]+) images/s", page, re.MULTILINE
    )
    measured = float(rate)
    assert 1 / mean_s == pytest.approx(measured, rel=0.03)
    assert f"had {measured:.2f} pictures a second" in PAGE.read_text()
    assert f"the seconds say {1 / mean_s:.2f}." in PAGE.read_text()
