"""README and the guide say what is: links, folders and the settings page are the code's."""

import re
from functools import cache
from pathlib import Path

import pytest

from upscaled.api.markdown_pages import render_page
from upscaled.config import describe_settings, load_settings

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("docker", "models", "scripts", "service", "tests")
PAGES = sorted(
    {*ROOT.glob("*.md"), *(page for at in FOLDERS for page in (ROOT / at).rglob("*.md"))}
)


@pytest.fixture(scope="module")
def readme() -> str:
    return (ROOT / "README.md").read_text()


def settings_table() -> str:
    lines = ["| variable | default | meaning |", "|---|---|---|"]
    for name, _, default, meaning in describe_settings(load_settings({})):
        shown = default.replace(str(Path.home()), "~")
        shown = f"`{shown}`" if shown else ""
        lines.append(f"| `{name}` | {shown} | {meaning} |")
    return "\n".join(lines)


def test_the_settings_table_is_the_code_s() -> None:
    page = (ROOT / "service" / "upscaled" / "docs" / "settings.md").read_text()
    found = re.search(r"<!-- settings:.*?-->\n(.*?)\n<!-- /settings -->", page, re.DOTALL)
    assert found is not None
    assert found[1] == settings_table(), f"put this into the page:\n{settings_table()}"


@cache
def find_headings(page: Path) -> frozenset[str]:
    return frozenset(re.findall(r'<h\d id="([^"]+)"', render_page(page.read_text())))


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_every_link_between_files_of_the_repository_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in link:
            continue
        name, _, heading = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        if heading:
            assert heading in find_headings(target), link


def test_the_readme_has_at_most_900_words(readme: str) -> None:
    assert 600 <= len(readme.split()) <= 900


def test_every_folder_of_the_packages_is_on_the_map() -> None:
    guide = (ROOT / "CONTRIBUTING.md").read_text()
    packages = {path.parent.name for path in (ROOT / "service" / "upscaled").glob("*/__init__.py")}
    assert [name for name in packages if f"`upscaled/{name}/`" not in guide] == []


def test_each_row_of_performance_md_has_a_figure() -> None:
    page = (ROOT / "service" / "upscaled" / "docs" / "performance.md").read_text()
    rows = re.findall(r"^\| (?!what)[^|\n]+ \| ([^|\n]+) \|", page, re.M)
    assert rows
    assert [cell for cell in rows if not re.search(r"\d|\bno\b", cell)] == []
