"""The manual page, as the programs show it that people read it with."""

import shutil
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from upscaled.cli import build_app
from upscaled.cli.command_tree import Command, Option, describe_commands
from upscaled.cli.man import write_page

TREE = describe_commands(build_app())


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"there is no {program} here")


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "upscaled.1"
    path.write_text(write_page(TREE))
    return path


@needs("man")
def test_man_shows_every_command_and_option(page: Path) -> None:
    done = subprocess.run(
        ["man", "--warnings", "-l", str(page)],
        check=True,
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "MANWIDTH": "300", "LC_ALL": "C.UTF-8", "MANPAGER": "cat"},
    )
    assert done.stderr == ""
    for command in TREE.walk():
        if not command.commands:
            assert f"   {' '.join(('upscaled', *command.path))}" in done.stdout
        for option in command.options:
            assert ", ".join(option.flags) in done.stdout


@needs("mandoc")
def test_mandoc_misses_nothing_but_a_date(page: Path) -> None:
    done = subprocess.run(
        ["mandoc", "-T", "lint", "-W", "warning", str(page)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert [line for line in done.stdout.splitlines() if "missing date" not in line] == []


def test_signs_of_roff_in_a_help_are_text(tmp_path: Path) -> None:
    option = Option(("--odd",), ".hidden\\n ~x", "A-B")
    help_text = "Does it.\n\n.dot and\n'quote\n\n  set  in\n  as is"
    text = write_page(Command((), "Root.", (), commands=(Command(("x",), help_text, (option,)),)))
    assert "\n\\&.dot and\n\\&'quote\n" in text
    assert "\n.nf\n  set  in\n  as is\n.fi\n" in text
    page = write_page(Command((), "Root.", (), commands=(Command(("x",), "x", (option, option)),)))
    assert "\\fB\\-\\-odd\\fR \\fIA\\-B\\fR\n\\&.hidden\\en \\(tix\n" in page


def test_the_command_prints_the_page() -> None:
    done = CliRunner().invoke(build_app(), ["man"])
    assert (done.exit_code, done.stdout) == (0, write_page(TREE))
