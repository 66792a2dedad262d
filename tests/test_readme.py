"""README says what is: commands, folders and links, and the settings page, are the code's."""

import re
from pathlib import Path

import pytest
import typer.main

from upscaled.cli import app
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


def test_every_command_is_named(readme: str) -> None:
    for name in typer.main.get_command(app).commands:  # type: ignore[attr-defined]
        assert f"upscaled {name}" in readme


def test_every_link_leads_somewhere(readme: str) -> None:
    links = re.findall(r"\]\(([^)#]+?)\)", readme)
    local = [link for link in links if "://" not in link]
    assert local
    assert [link for link in local if not (ROOT / link).exists()] == []


def test_every_folder_of_the_packages_is_on_the_map(readme: str) -> None:
    packages = {path.parent.name for path in (ROOT / "service" / "upscaled").glob("*/__init__.py")}
    assert [name for name in packages if f"(service/upscaled/{name})" not in readme] == []


def test_every_figure_is_a_number(readme: str) -> None:
    _, _, figures = readme.partition("\n## Figures\n")
    rows = re.findall(r"^\| (?!what)[^|\n]+ \| ([^|\n]+) \|", figures.partition("\n## ")[0], re.M)
    assert rows
    assert [cell for cell in rows if not re.search(r"\d|\bno\b", cell)] == []
