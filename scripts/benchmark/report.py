"""Results as the page of performance shows them: a table, and the picture of throughput."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from scripts.benchmark.machine import Figures, describe_in_a_line
from scripts.benchmark.plot import Panel, draw
from scripts.benchmark.race import PEAK

BEGIN, END = "<!-- results: written by scripts/bench --page -->", "<!-- /results -->"
DOCS = Path(__file__).resolve().parents[2] / "service" / "upscaled" / "docs"
PLOT = DOCS / "performance" / "throughput.svg"

Rows = Iterator[tuple[str, str]]


def to_table(report: Figures) -> str:
    """Write Markdown: one row for each figure that was measured."""
    machine: Any = report["machine"]
    heading = f"{describe_in_a_line(machine)}; {machine['date']}."
    rows = [
        f"| {subject} | {figure} |"
        for part, describe in _PARTS.items()
        if part in report
        for subject, figure in describe(report[part])
    ]
    return "\n".join([heading, "", "| what | figure |", "|---|---|", *rows])


def write_into_page(report: Figures, page: Path, plot: Path = PLOT) -> None:
    """Put the table between the page's markers, and the picture where it points to.

    Raises:
        ValueError: the page has no such markers.
    """
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page}: has no {BEGIN} and {END}")
    middle = to_table(report)
    http: Any = report.get("http")
    if http:
        plot.write_text(draw_throughput(http))
        link = plot.relative_to(page.parent).as_posix()
        middle += f"\n\n![Throughput by image size and by clients]({link})"
    page.write_text(f"{before}{BEGIN}\n{middle}\n{END}{after}")


def draw_throughput(http: Mapping[str, Any]) -> str:
    """Draw the HTTP part's throughput as SVG."""
    sizes = {side: figures["megapixels_per_s"] for side, figures in http["alone"].items()}
    clients = {count: figures["images_per_s"] for count, figures in http["clients"].items()}
    one_client = "Megapixels out per second, x4, one client"
    return draw(
        (
            Panel(one_client, "side of the square input, px", {"": sizes}),
            Panel("Images per second, x4, mixed sizes", "clients at once", {"": clients}),
        )
    )


def _kernel_rows(kernel: Mapping[str, Any]) -> Rows:
    for race, figures in kernel.items():
        for name, contestant in figures["contestants"].items():
            if not name.startswith(PEAK):
                yield f"{race}: {name} ({contestant['label']})", _describe_speed(contestant)
        for name, reason in figures["absent"].items():
            yield f"{race}: {name}", f"absent: {reason.splitlines()[0]}"


def _describe_speed(contestant: Mapping[str, Any]) -> str:
    text = f"{contestant['fastest_s']:.3g} s, {contestant['gflop_per_s']:.0f} GFLOP/s"
    if "speed_up" in contestant:
        text = f"{contestant['speed_up']:.2f}x the `realesrgan` package; {text}"
    if "share_of_peak" in contestant:
        text += f", {contestant['share_of_peak']:.0%} of the matrix peak"
    if "psnr_db" in contestant:
        decibel = contestant["psnr_db"]
        text += f"; {decibel:.1f} dB to float32" if decibel else "; the float32 picture"
    return text


def _peak_rows(peak: Mapping[str, Any]) -> Rows:
    for name, figures in peak["contestants"].items():
        yield f"matrix {name}", f"{figures['gflop_per_s']:.0f} GFLOP/s"


def _http_rows(http: Mapping[str, Any]) -> Rows:
    side, alone = list(http["alone"].items())[-1]
    yield (
        f"{side}x{side} at x4 over HTTP, alone",
        f"p50 {alone['p50_s']:.2f} s, p95 {alone['p95_s']:.2f} s, "
        f"{alone['megapixels_per_s']:.1f} megapixels/s; "
        f"{alone['share_outside_network']:.1%} outside the network",
    )
    count, mixed = list(http["clients"].items())[-1]
    yield (
        f"{count} clients of mixed sizes",
        f"p50 {mixed['p50_s']:.2f} s, p95 {mixed['p95_s']:.2f} s, "
        f"{mixed['images_per_s']:.1f} images/s, {mixed['megapixels_per_s']:.1f} megapixels/s",
    )
    beside = http["beside_large"]
    small_px, large_px = beside["small_px"], beside["large_px"]
    yield (
        f"{small_px}x{small_px} while {large_px}x{large_px} is under way, p95",
        f"{beside['ratio']:.1f}x its idle time ({beside['idle_p95_s'] * 1000:.0f} ms)",
    )
    small = http["small_images"]
    yield (
        f"{small['images']} images of {small['side_px']} px, {small['clients']} clients",
        f"{small['ratio']:.2f}x as fast as one at a time",
    )
    content = http["content"]
    side, share = content["side_px"], content["share"]
    for name, ratio in content["ratios"].items():
        yield (
            f"{side}x{side} {name}, {share:.0%} of it object",
            f"{ratio:.2f} of the time of a full picture in its format",
        )


def _cold_rows(cold: Mapping[str, Any]) -> Rows:
    side_px = cold["side_px"]
    yield (
        f"first request of a service, {side_px}x{side_px} at x4",
        f"{cold['first_s']:.2f} s, later ones {cold['later_s']:.2f} s; ready after "
        f"{cold['ready_s']:.1f} s",
    )


def _seam_rows(seams: Mapping[str, Any]) -> Rows:
    for model, figures in seams.items():
        yield (
            f"tiled against untiled, {model} ({figures['weights']}), halo {figures['halo_px']} px",
            f"largest {figures['largest_levels']}, mean {figures['mean_levels']:.4f} levels",
        )


def _memory_rows(memory: Mapping[str, Any]) -> Rows:
    side, device_mib = memory["side_px"], memory["peak_device_mib"]
    yield (
        f"memory of all processes, {side}x{side} at x4",
        f"{memory['peak_rss_mib']} MiB resident at most, {memory['peak_pss_mib']} MiB with what "
        "they share counted once" + (f"; {device_mib} MiB of the GPU" if device_mib else ""),
    )
    health = memory["healthz_ms"]
    yield "`/healthz` meanwhile", f"p50 {health['p50']:.0f} ms, p99 {health['p99']:.0f} ms"


def _batch_rows(batch: Mapping[str, Any]) -> Rows:
    side = batch["side_px"]
    yield (
        f"`upscaled image`, {batch['images']} files of {side}x{side} at x4",
        f"{batch['ratio']:.1%} of the network's own throughput ({batch['cpu_ratio']:.1%} by "
        f"processor time); {batch['images_per_s']:.1f} images/s, "
        f"{batch['megapixels_per_s']:.1f} megapixels/s",
    )


def _avatar_rows(avatars: Mapping[str, Any]) -> Rows:
    side, model = avatars["side_px"], avatars["model"]
    for label, figures in avatars["by_engine"].items():
        yield (
            f"{figures['images']} pictures of {side}x{side} as one batch, {model} ({label})",
            f"{figures['ratio']:.2f} of the time of one after the other",
        )


def _divided_rows(divided: Mapping[str, Any]) -> Rows:
    small, large = divided["small_px"], divided["large_px"]
    whole, halves, ratios = divided["whole"], divided["divided"], divided["ratios"]
    yield (
        f"{large}x{large} from two clients beside {small}x{small}, two workers on half the cores",
        f"{ratios['large_s']:.2f} of one worker's time ({ratios['cpu_s']:.2f} by processor time)",
    )
    one_ms, two_ms = (figures["small_p95_s"] * 1000 for figures in (whole, halves))
    yield f"{small}x{small} meanwhile, p95", f"{two_ms:.0f} ms, with one worker {one_ms:.0f} ms"


_PARTS: Mapping[str, Any] = {
    "kernel": _kernel_rows,
    "peak": _peak_rows,
    "cold": _cold_rows,
    "http": _http_rows,
    "seams": _seam_rows,
    "memory": _memory_rows,
    "batch": _batch_rows,
    "avatars": _avatar_rows,
    "divided": _divided_rows,
}
