"""Markdown becomes a page in which only what is served is linked, and cells name their columns."""

import re

from upscaled.api.markdown_pages import render_page


def test_html_in_a_page_is_not_let_through() -> None:
    page = render_page("# A\n\n<script>alert(1)</script>\n\na <b onclick=x>b</b>\n")
    assert "<script>" not in page
    assert "onclick" not in page


def test_a_link_to_a_file_of_the_repository_becomes_text() -> None:
    page = render_page("see [the code](../../../scripts/bench) and [it](models.md#tempering)")
    assert "see the code and" in page
    assert '<a href="models#tempering">it</a>' in page


def test_each_cell_of_each_table_has_the_heading_of_its_column() -> None:
    first = "| a | `b` *c* |\n|---|---|\n| 1 | |\n| 3 | 4 |\n"
    page = render_page(f"{first}\ntext\n\n| | d |\n|---|---|\n| 5 | 6 |\n")
    assert "<td>" not in page
    cells = re.findall(r'<td data-heading="([^"]*)">([^<]*)</td>', page)
    assert cells == [
        *[("a", "1"), ("b c", ""), ("a", "3"), ("b c", "4")],
        *[("", "5"), ("d", "6")],
    ]
