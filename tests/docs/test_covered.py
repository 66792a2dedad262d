"""Nothing that an operator can touch is left out of the pages."""

import re
from typing import Any

import pytest
import typer.main
from typer.core import TyperGroup, TyperOption

from tests.docs.blocks import DOCS, PAGES, ROOT
from upscaled.cli import build_app
from upscaled.config import ALIASES, PREFIX, Settings
from upscaled.config.loading import FILES
from upscaled.errors import ServiceError


def _leaves(command: Any, words: tuple[str, ...] = ("upscaled",)) -> list[tuple[str, Any]]:
    if isinstance(command, TyperGroup):
        return [
            leaf
            for name, each in command.commands.items()
            for leaf in _leaves(each, (*words, name))
        ]
    return [(" ".join(words), command)]


COMMANDS = _leaves(typer.main.get_command(build_app()))


@pytest.mark.parametrize(("name", "command"), COMMANDS, ids=[name for name, _ in COMMANDS])
def test_every_command_and_option_is_documented(name: str, command: Any) -> None:
    text = (DOCS / "commands.md").read_text()
    row = next((line for line in text.splitlines() if line.startswith(f"| `{name}")), None)
    assert row is not None
    options = [
        option
        for parameter in command.params
        if isinstance(parameter, TyperOption)
        for option in parameter.opts
        if option != "--help"
    ]
    if "see below" in row:
        row = text.partition("\n## ")[2]
    assert [option for option in options if f"`{option}`" not in row] == []


def test_every_setting_is_in_the_table() -> None:
    text = (DOCS / "settings.md").read_text()
    names = [PREFIX + name.upper() for name in Settings.model_fields]
    assert [name for name in names if f"| `{name}` |" not in text] == []


def test_every_setting_that_a_page_names_exists() -> None:
    known = {PREFIX + name.upper() for name in (*Settings.model_fields, *ALIASES, *FILES)}
    unknown = {
        (page.name, name)
        for page in PAGES
        for name in re.findall(r"\bUPSCALED_[A-Z0-9_]+\b", page.read_text())
        if name not in known
    }
    assert unknown == set()


def test_every_error_code_has_a_row_with_its_status() -> None:
    text = (DOCS / "errors.md").read_text()
    kinds = [kind for kind in ServiceError.__subclasses__() if kind.error_code]
    assert len(kinds) >= 14
    assert [
        kind.error_code for kind in kinds if f"| `{kind.error_code}` | {kind.status} |" not in text
    ] == []


def test_every_page_is_linked_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    assert [
        page.name
        for page in DOCS.glob("*.md")
        if f"(service/upscaled/docs/{page.name})" not in readme
    ] == []


def test_every_file_that_a_page_names_exists() -> None:
    guides = [ROOT / name for name in ("CONTRIBUTING.md", "SECURITY.md")]
    missing = [
        (page.name, name)
        for page in (*PAGES, *guides)
        for name in re.findall(
            r"(?<![\w./-])(?:tests|scripts|service|models)/[\w./-]*\w", page.read_text()
        )
        if not (ROOT / name).exists()
    ]
    assert missing == []
