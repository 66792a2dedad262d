"""Results as the page of performance shows them: a table, and README's plot of sizes."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.benchmark.machine import Figures, describe_in_a_line
from scripts.benchmark.plot import Panel, draw

BEGIN, END = "<!-- results: written by scripts/bench --page -->", "<!-- /results -->"
DOCS = Path(__file__).resolve().parents[2] / "service" / "upscaled" / "docs"
SIZES, SIZES_PLOT = Path(__file__).with_name("sizes.json"), DOCS / "performance" / "sizes.svg"
"""README's plot, and its figures: of one core of an AMD EPYC with AVX-512, November 2026."""

_WAITS = "p50 {p50_s:.2f} s, p95 {p95_s:.2f} s"

ROWS = {
    "cold": [
        "first request of a service, {side_px}x{side_px} at x4 | {first_s:.2f} s, "
        "later ones {later_s:.2f} s; ready after {ready_s:.1f} s"
    ],
    "http alone *": [
        "{name}x{name} at x4 over HTTP, alone | " + _WAITS + ", {megapixels_per_s:.2f} "
        "megapixels/s; {share_outside_network:.1%} outside the network"
    ],
    "http clients *": [
        "{name} clients of mixed sizes | " + _WAITS + ", {images_per_s:.2f} images/s, "
        "{megapixels_per_s:.2f} megapixels/s"
    ],
    "http beside_large": [
        "{small_px}x{small_px} while {large_px}x{large_px} is under way, p95 "
        "| {ratio:.1f}x its idle time ({idle_p95_s:.3f} s)"
    ],
    "http small_images": [
        "{images} images of {side_px} px, {clients} clients | {ratio:.2f}x as fast as one at a time"
    ],
    "http content ratios *": [
        "{side_px}x{side_px} {name}, {share:.0%} of it object "
        "| {ratio:.2f} of the time of a full picture in its format"
    ],
    "memory": [
        "memory of all processes, {side_px}x{side_px} at x4 | {peak_rss_mib} MiB resident at "
        "most, {peak_pss_mib} MiB with what they share counted once",
        "`/healthz` meanwhile | p50 {healthz_ms[p50]:.0f} ms, p99 {healthz_ms[p99]:.0f} ms",
    ],
    "memory peak_device_mib": ["memory of the GPU meanwhile | {peak_device_mib} MiB"],
    "batch": [
        "`upscaled image`, {images} files of {side_px}x{side_px} at x4 | {ratio:.1%} of the "
        "network's own throughput ({cpu_ratio:.1%} by processor time); "
        "{images_per_s:.1f} images/s, {megapixels_per_s:.1f} megapixels/s"
    ],
}
"""Further rows by the path to their figures: `*` is each of several."""


def to_table(report: Figures) -> str:
    """Write Markdown: one row for each figure that was measured."""
    machine = report["machine"]
    heading = [f"{describe_in_a_line(machine)}; {machine['date']}.", "", "| what | figure |"]
    rows = [f"| {subject} | {figure} |" for subject, figure in _kernel_rows(report)]
    for path, texts in ROWS.items():
        for figures in _find(report, path.split(), {}):
            rows += [f"| {text.format_map(figures)} |" for text in texts]
    return "\n".join([*heading, "|---|---|", *rows])


def write_into_page(report: Figures, page: Path) -> None:
    """Put the table between the page's markers; ValueError: it has none."""
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page}: has no {BEGIN} and {END}")
    page.write_text(f"{before}{BEGIN}\n{to_table(report)}\n{END}{after}")


def write_sizes(report: Figures) -> None:
    """Record the figures of the part `sizes`, and draw README's plot of them."""
    SIZES.write_text(json.dumps(report["sizes"]) + "\n")
    SIZES_PLOT.write_text(draw_sizes(report["sizes"]))


def draw_sizes(sizes: Mapping[str, Any]) -> str:
    """Draw one panel for each model, the seconds on a logarithmic axis."""
    title, axis = "{} at x4: seconds of one core", "side of the square picture, px"
    return draw([Panel(title.format(model), axis, sizes[model]) for model in sizes])


def _kernel_rows(report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for race, figures in report.get("kernel", {}).items():
        for name, row in figures["contestants"].items():
            text = "{fastest_s:.3g} s, {gflop_per_s:.0f} GFLOP/s".format_map(row)
            if "speed_up" in row:
                text = f"{row['speed_up']:.2f}x the `realesrgan` package; {text}"
            if "share_of_peak" in row:
                text += f", {row['share_of_peak']:.0%} of the matrix peak"
            if "psnr_db" in row:
                decibel = row["psnr_db"]
                text += f"; {decibel:.1f} dB to float32" if decibel else "; the float32 picture"
            yield f"{race}: {name} ({row['label']})", text
        for name, reason in figures["absent"].items():
            yield f"{race}: {name}", f"absent: {reason.splitlines()[0]}"


def _find(figures: Any, path: Sequence[str], around: Mapping[str, Any]) -> Iterator[dict[str, Any]]:  # noqa: ANN401
    """Yield the figures at a path of `ROWS` together with those around them; none if not measured.

    `name` is the last name on the way; a figure that stands alone is `ratio`.
    """
    found = {**around, **(figures if isinstance(figures, Mapping) else {"ratio": figures})}
    if not path:
        yield found
        return
    step, *rest = path
    for name in figures if step == "*" else [step]:
        if figures.get(name) is not None:
            yield from _find(figures[name], rest, {**found, "name": name})
