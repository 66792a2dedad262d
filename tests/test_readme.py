"""README and the guide say what is: links, folders and the settings page are the code's."""

import re
from pathlib import Path

import pytest

from upscaled.config import describe_settings, load_settings

ROOT = Path(__file__).resolve().parents[1]


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


def test_every_link_leads_somewhere(readme: str) -> None:
    links = re.findall(r"\]\(([^)#]+?)\)", readme)
    local = [link for link in links if "://" not in link]
    assert local
    assert [link for link in local if not (ROOT / link).exists()] == []


def test_it_is_short_enough_to_be_read(readme: str) -> None:
    assert 600 <= len(readme.split()) <= 900


def test_every_folder_of_the_packages_is_on_the_map() -> None:
    guide = (ROOT / "CONTRIBUTING.md").read_text()
    packages = {path.parent.name for path in (ROOT / "service" / "upscaled").glob("*/__init__.py")}
    assert [name for name in packages if f"`upscaled/{name}/`" not in guide] == []


def test_every_figure_is_a_number() -> None:
    page = (ROOT / "service" / "upscaled" / "docs" / "performance.md").read_text()
    rows = re.findall(r"^\| (?!what)[^|\n]+ \| ([^|\n]+) \|", page, re.M)
    assert rows
    assert [cell for cell in rows if not re.search(r"\d|\bno\b", cell)] == []
