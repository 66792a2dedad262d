"""Results as the page of performance shows them: a table, and the picture of throughput."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from scripts.benchmark.machine import Facts, describe_in_a_line
from scripts.benchmark.plot import Panel, draw
from scripts.benchmark.race import PEAK

BEGIN, END = "<!-- results: written by scripts/bench --page -->", "<!-- /results -->"
DOCS = Path(__file__).resolve().parents[2] / "service" / "upscaled" / "docs"
PLOT = DOCS / "performance" / "throughput.svg"

Rows = Iterator[tuple[str, str]]


def to_table(report: Facts) -> str:
    """Markdown: one row for each figure that was measured."""
    machine: Any = report["machine"]
    heading = f"{describe_in_a_line(machine)}; {machine['date']}."
    rows: list[tuple[str, str]] = []
    for part, describe in _PARTS.items():
        if part in report:
            rows += describe(cast(Mapping[str, Any], report[part]))
    lines = [f"| {what} | {figure} |" for what, figure in rows]
    return "\n".join([heading, "", "| what | figure |", "|---|---|", *lines])


def write_into_page(report: Facts, page: Path, plot: Path = PLOT) -> None:
    """Put the table between the page's markers, and the picture where it points to.

    Raises:
        ValueError: the page has no such markers.
    """
    text = page.read_text()
    before, found_begin, rest = text.partition(BEGIN)
    _, found_end, after = rest.partition(END)
    if not found_begin or not found_end:
        raise ValueError(f"{page}: has no {BEGIN} and {END}")
    middle = to_table(report)
    if "http" in report:
        plot.write_text(draw_throughput(cast(Mapping[str, Any], report["http"])))
        middle += f"\n\n![Throughput by image size and by clients]({_link(plot, page)})"
    page.write_text(f"{before}{BEGIN}\n{middle}\n{END}{after}")


def draw_throughput(http: Mapping[str, Any]) -> str:
    """The HTTP part's throughput as SVG."""
    sizes = [(f"{side}", float(facts["megapixels_per_s"])) for side, facts in http["alone"].items()]
    clients = [(count, float(facts["images_per_s"])) for count, facts in http["clients"].items()]
    return draw(
        (
            Panel(
                "Megapixels out per second, x4, one client", "side of the square input, px", sizes
            ),
            Panel("Images per second, x4, mixed sizes", "clients at once", clients),
        )
    )


def _link(file: Path, page: Path) -> str:
    return (
        file.relative_to(page.parent).as_posix() if file.is_relative_to(page.parent) else file.name
    )


def _kernel_rows(kernel: Mapping[str, Any]) -> Rows:
    for race, facts in kernel.items():
        for name, contestant in facts["contestants"].items():
            if not name.startswith(PEAK):
                yield f"{race}: {name} ({contestant['label']})", _speed(facts, name)
        for name, reason in facts["absent"].items():
            yield f"{race}: {name}", f"absent: {reason.splitlines()[0]}"


def _speed(facts: Mapping[str, Any], name: str) -> str:
    contestant = facts["contestants"][name]
    text = f"{contestant['fastest_s']:.3g} s, {contestant['gflop_per_s']:.0f} GFLOP/s"
    if contestant["share_of_peak"]:
        text += f", {contestant['share_of_peak']:.0%} of the matrix peak"
    for pair, ratio in facts["ratios"].items():
        if pair.startswith(f"{name} against "):
            text = f"{ratio['fastest']:.2f}x the `realesrgan` package; {text}"
    return text + _likeness(facts["pictures"], name)


def _likeness(pictures: Mapping[str, Any], name: str) -> str:
    for pair, facts in pictures.items():
        if pair.startswith(f"{name} against "):
            decibel = facts["psnr_db"]
            return f"; {decibel:.1f} dB to float32" if decibel else "; the float32 picture"
    return ""


def _peak_rows(peak: Mapping[str, Any]) -> Rows:
    for name, facts in peak["contestants"].items():
        yield f"matrix {name}", f"{facts['gflop_per_s']:.0f} GFLOP/s"


def _http_rows(http: Mapping[str, Any]) -> Rows:
    side, facts = list(http["alone"].items())[-1]
    yield (
        f"{side}x{side} at x4 over HTTP, alone",
        f"p50 {facts['p50_s']:.2f} s, p95 {facts['p95_s']:.2f} s, "
        f"{facts['megapixels_per_s']:.1f} megapixels/s; "
        f"{facts['share_outside_network']:.1%} outside the network",
    )
    count, facts = list(http["clients"].items())[-1]
    yield (
        f"{count} clients of mixed sizes",
        f"p50 {facts['p50_s']:.2f} s, p95 {facts['p95_s']:.2f} s, "
        f"{facts['images_per_s']:.1f} images/s, {facts['megapixels_per_s']:.1f} megapixels/s",
    )
    beside = http["beside_large"]
    yield (
        f"{beside['small_px']}x{beside['small_px']} while {beside['large_px']}x"
        f"{beside['large_px']} is under way, p95",
        f"{beside['ratio']:.1f}x its idle time ({beside['idle_p95_s'] * 1000:.0f} ms)",
    )
    small = http["small_images"]
    yield (
        f"{small['images']} images of {small['side_px']} px, {small['clients']} clients",
        f"{small['ratio']:.2f}x as fast as one at a time",
    )


def _seam_rows(seams: Mapping[str, Any]) -> Rows:
    for model, facts in seams.items():
        yield (
            f"tiled against untiled, {model} ({facts['weights']}), halo {facts['halo_px']} px",
            f"largest {facts['largest_levels']}, mean {facts['mean_levels']:.4f} levels",
        )


def _memory_rows(memory: Mapping[str, Any]) -> Rows:
    side = memory["side_px"]
    device = memory["peak_device_mib"]
    yield (
        f"memory of all processes, {side}x{side} at x4",
        f"{memory['peak_rss_mib']} MiB resident at most, {memory['peak_pss_mib']} MiB with what "
        "they share counted once" + (f"; {device} MiB of the GPU" if device else ""),
    )
    yield (
        "`/healthz` meanwhile",
        f"p50 {memory['healthz_ms']['p50']:.0f} ms, p99 {memory['healthz_ms']['p99']:.0f} ms",
    )


def _batch_rows(batch: Mapping[str, Any]) -> Rows:
    side = batch["side_px"]
    yield (
        f"`upscaled image`, {batch['images']} files of {side}x{side} at x4",
        f"{batch['ratio']:.1%} of the network's own throughput ({batch['cpu_ratio']:.1%} by "
        f"processor time); {batch['images_per_s']:.1f} images/s, "
        f"{batch['megapixels_per_s']:.1f} megapixels/s",
    )


_PARTS = {
    "kernel": _kernel_rows,
    "peak": _peak_rows,
    "http": _http_rows,
    "seams": _seam_rows,
    "memory": _memory_rows,
    "batch": _batch_rows,
}
