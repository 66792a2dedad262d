import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from scripts.benchmark.plot import Panel, draw, nice_ceiling
from scripts.benchmark.report import (
    BEGIN,
    END,
    SIZES,
    SIZES_PLOT,
    draw_sizes,
    draw_throughput,
    to_table,
    write_into_page,
)


@pytest.fixture
def report() -> dict[str, Any]:
    wait = {"p50_s": 0.1, "p95_s": 0.2, "images_per_s": 4.0, "megapixels_per_s": 2.0}
    return {
        "machine": {"date": "2026-11-24", "cpu": "A", "cpu_flags": ["avx2"], "cores": 2, "gpu": ""},
        "http": {
            "alone": {"64": wait, "1500": wait | {"share_outside_network": 0.08}},
            "clients": {"1": wait, "16": wait | {"images_per_s": 9.0}},
            "beside_large": {
                "small_px": 64, "large_px": 1500, "ratio": 2.5, "idle_p95_s": 0.03
            },
            "small_images": {"images": 200, "side_px": 96, "clients": 8, "ratio": 1.5},
            "content": {"side_px": 1500, "share": 0.4, "ratios": {"cut-out": 0.52}},
        },
        "cold": {"side_px": 256, "ready_s": 4.04, "first_s": 0.4, "later_s": 0.25},
    }  # fmt: skip


def test_a_table_says_on_what_and_when_it_was_measured(report: dict[str, Any]) -> None:
    heading, *rows = to_table(report).splitlines()
    assert heading == "2 cores of A (avx2), no GPU; 2026-11-24."
    assert rows[-2:] == [
        "| 200 images of 96 px, 8 clients | 1.50x as fast as one at a time |",
        "| 1500x1500 cut-out, 40% of it object "
        "| 0.52 of the time of a full picture in its format |",
    ]


def test_a_first_request_stands_beside_later_ones(report: dict[str, Any]) -> None:
    figures = "256x256 at x4 | 0.40 s, later ones 0.25 s; ready after 4.0 s |"
    assert f"| first request of a service, {figures}" in to_table(report)


def test_parts_that_were_not_measured_have_no_rows(report: dict[str, Any]) -> None:
    del report["http"], report["cold"]
    assert to_table(report).splitlines()[-1] == "|---|---|"


def test_the_page_keeps_all_that_is_not_between_the_marks(
    report: dict[str, Any], tmp_path: Path
) -> None:
    page, plot = tmp_path / "performance.md", tmp_path / "plots" / "throughput.svg"
    plot.parent.mkdir()
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    for _ in range(2):
        write_into_page(report, page, plot)
    text = page.read_text()
    assert text.startswith(f"before\n{BEGIN}\n2 cores of A")
    assert text.endswith(f"(plots/throughput.svg)\n{END}\nafter\n")
    assert "old" not in text
    assert plot.is_file()


def test_the_page_without_marks_is_left_alone(report: dict[str, Any], tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text("nothing")
    with pytest.raises(ValueError, match="has no"):
        write_into_page(report, page)
    assert page.read_text() == "nothing"


def test_the_picture_is_drawn_to_scale(report: dict[str, Any]) -> None:
    picture = ET.fromstring(draw_throughput(report["http"]))
    space = "{http://www.w3.org/2000/svg}"
    heights = [float(dot.attrib["cy"]) for dot in picture.iter(f"{space}circle")]
    bottom = 300 - 46
    megapixels, images = heights[:2], heights[2:]
    assert megapixels[0] == megapixels[1]
    assert (bottom - images[1]) / (bottom - images[0]) == pytest.approx(9 / 4, abs=0.02)
    assert {"64", "1500", "1", "16"} <= {text.text for text in picture.iter(f"{space}text")}


def test_a_logarithmic_axis_gives_every_factor_of_ten_the_same_length() -> None:
    picture = ET.fromstring(draw([Panel("", "", {"": {"a": 0.1, "b": 1, "c": 10}}, is_log=True)]))
    dots = picture.iter("{http://www.w3.org/2000/svg}circle")
    one, two, three = (float(dot.attrib["cy"]) for dot in dots)
    assert one - two == pytest.approx(two - three, abs=0.2)
    assert one - three == pytest.approx(300 - 40 - 46)


@pytest.mark.parametrize(("value", "above"), [(3, 5), (0.21, 0.25), (1000, 1000), (8.1, 10)])
def test_an_axis_ends_at_a_round_number(value: float, above: float) -> None:
    assert nice_ceiling(value) == pytest.approx(above)


def test_the_plot_of_sizes_shows_what_is_recorded() -> None:
    assert SIZES_PLOT.read_text() == draw_sizes(json.loads(SIZES.read_text()))


def test_names_at_the_ends_of_curves_do_not_overlap() -> None:
    curves = {"one": {"a": 1.0}, "two": {"a": 1.01}, "three": {"a": 1.02}}
    picture = ET.fromstring(draw([Panel("", "", curves)]))
    texts = picture.iter("{http://www.w3.org/2000/svg}text")
    ys = {str(text.text).split()[0]: float(text.attrib["y"]) for text in texts if text.text}
    assert ys["two"] - ys["three"] >= 14
    assert ys["one"] - ys["two"] >= 14
