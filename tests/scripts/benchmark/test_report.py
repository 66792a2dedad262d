import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from scripts.benchmark.plot import Panel, draw
from scripts.benchmark.report import (
    BEGIN,
    END,
    SIZES,
    SIZES_PLOT,
    draw_sizes,
    to_table,
    write_into_page,
)


@pytest.fixture
def report() -> dict[str, Any]:
    wait = {"p50_s": 0.1, "p95_s": 0.2, "images_per_s": 4.0, "megapixels_per_s": 2.0}
    return {
        "machine": {"date": "2026-11-24", "cpu": "A", "cpu_flags": ["avx2"], "cores": 2, "gpu": ""},
        "http": {
            "alone": {side: wait | {"share_outside_network": 0.05} for side in ("64", "1500")},
            "clients": {"1": wait, "16": wait | {"images_per_s": 9.0}},
            "beside_large": {
                "small_px": 64, "large_px": 1500, "ratio": 2.5, "idle_p95_s": 0.03
            },
            "small_images": {"images": 200, "side_px": 96, "clients": 8, "ratio": 1.5},
            "content": {"side_px": 1500, "share": 0.4, "ratios": {"cut-out": 0.52}},
        },
        "cold": {"side_px": 256, "ready_s": 4.04, "first_s": 0.4, "later_s": 0.25},
    }  # fmt: skip


def test_a_table_names_its_machine_and_its_date(report: dict[str, Any]) -> None:
    heading, *rows = to_table(report).splitlines()
    assert heading == "2 cores of A (avx2), no GPU; 2026-11-24."
    assert rows[-2:] == [
        "| 200 images of 96 px, 8 clients | 1.50x as fast as one at a time |",
        "| 1500x1500 cut-out, 40% of it object "
        "| 0.52 of the time of a full picture in its format |",
    ]


def test_a_first_request_is_reported_beside_later_ones(report: dict[str, Any]) -> None:
    figures = "256x256 at x4 | 0.40 s, later ones 0.25 s; ready after 4.0 s |"
    assert f"| first request of a service, {figures}" in to_table(report)


def test_parts_that_were_not_measured_have_no_rows(report: dict[str, Any]) -> None:
    del report["http"], report["cold"]
    assert to_table(report).splitlines()[-1] == "|---|---|"


def test_the_page_keeps_all_that_is_not_between_the_marks(
    report: dict[str, Any], tmp_path: Path
) -> None:
    page = tmp_path / "performance.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    for _ in range(2):
        write_into_page(report, page)
    text = page.read_text()
    assert text.startswith(f"before\n{BEGIN}\n2 cores of A")
    assert text.endswith(f"\n{END}\nafter\n")
    assert "old" not in text


def test_the_page_without_marks_is_left_alone(report: dict[str, Any], tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text("nothing")
    with pytest.raises(ValueError, match="has no"):
        write_into_page(report, page)
    assert page.read_text() == "nothing"


def test_every_size_and_number_of_clients_has_its_row(report: dict[str, Any]) -> None:
    table = to_table(report)
    assert (
        "| 64x64 at x4 over HTTP, alone | p50 0.10 s, p95 0.20 s, 2.00 megapixels/s; 5.0%" in table
    )
    assert "| 1 clients of mixed sizes | p50 0.10 s, p95 0.20 s, 4.00 images/s" in table
    assert "| 16 clients of mixed sizes | p50 0.10 s, p95 0.20 s, 9.00 images/s" in table


def test_matrix_products_have_rows_among_the_contestants(report: dict[str, Any]) -> None:
    product = {"label": "product of 1024x1024 int8", "fastest_s": 0.3, "gflop_per_s": 700.0}
    report["kernel"] = {"race": {"contestants": {"peak int8": product}, "absent": {}}}
    row = "| race: peak int8 (product of 1024x1024 int8) | 0.3 s, 700 GFLOP/s |"
    assert row in to_table(report)


def test_a_logarithmic_axis_gives_every_factor_of_ten_the_same_length() -> None:
    picture = ET.fromstring(draw([Panel("", "", {"": {"a": 0.1, "b": 1, "c": 10}})]))
    dots = picture.iter("{http://www.w3.org/2000/svg}circle")
    one, two, three = (float(dot.attrib["cy"]) for dot in dots)
    assert one - two == pytest.approx(two - three, abs=0.2)
    assert one - three == pytest.approx(300 - 40 - 46)


def test_the_plot_of_sizes_shows_what_is_recorded() -> None:
    assert SIZES_PLOT.read_text() == draw_sizes(json.loads(SIZES.read_text()))


def test_names_at_the_ends_of_curves_do_not_overlap() -> None:
    curves = {"one": {"a": 1.0}, "two": {"a": 1.01}, "three": {"a": 1.02}}
    picture = ET.fromstring(draw([Panel("", "", curves)]))
    texts = picture.iter("{http://www.w3.org/2000/svg}text")
    ys = {str(text.text).split()[0]: float(text.attrib["y"]) for text in texts if text.text}
    assert ys["two"] - ys["three"] >= 14
    assert ys["one"] - ys["two"] >= 14
