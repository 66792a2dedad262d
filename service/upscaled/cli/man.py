"""`upscaled man`: print the manual page, which is made from the parser."""

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import typer

from upscaled import __version__
from upscaled.cli.command_tree import PROGRAM, Command, Option, describe_commands

_SECTION: Final = 1
_ENVIRONMENT: Final = (
    "Settings are environment variables UPSCALED_*; upscaled config lists them with their values, "
    "defaults and meanings."
)
_LITERAL: Final = re.compile(r"^\s", re.MULTILINE)
"""Begins a line whose paragraph is set as it was written."""


def write_page(root: Command) -> str:
    """Return the manual page of the whole command line, in the macros man(7)."""
    leaves = [each for each in root.walk() if not each.commands]
    title = f'.TH {PROGRAM.upper()} {_SECTION} "" "{PROGRAM} {__version__}" "User Commands"'
    lines = [
        title,
        ".SH NAME",
        f"{PROGRAM} \\- self\\-hosted image upscaling",
        ".SH SYNOPSIS",
        f".B {PROGRAM}",
        ".I COMMAND",
        "[\\fIOPTION\\fR]... [\\fIARGUMENT\\fR]...",
        ".SH DESCRIPTION",
        *_write_text(root.help),
        ".SH OPTIONS",
        *_write_options(root),
        ".SH COMMANDS",
        *(line for command in leaves for line in _write_command(command)),
        ".SH ENVIRONMENT",
        *_write_text(_ENVIRONMENT),
    ]
    return "\n".join(lines) + "\n"


def _write_command(command: Command) -> Iterator[str]:
    names = " ".join((PROGRAM, *command.path))
    arguments = " ".join(f"\\fI{_escape(name)}\\fR" for name, _ in command.arguments)
    yield f".SS {_escape(names)} {arguments}".rstrip()
    yield from _write_text(command.help)
    for name, text in filter(lambda argument: argument[1], command.arguments):
        yield from (".TP", f"\\fI{_escape(name)}\\fR", _escape_line(text))
    yield from _write_options(replace(command, options=command.options[:-1]))  # all have --help


def _write_options(command: Command) -> Iterator[str]:
    for option in command.options:
        yield from (".TP", _write_flags(option), _escape_line(option.help or "See above."))


def _write_flags(option: Option) -> str:
    flags = ", ".join(f"\\fB{_escape(flag)}\\fR" for flag in option.flags)
    value = f" \\fI{_escape(option.value)}\\fR" if option.value else ""
    return f"{flags}{value}{' (required)' if option.is_required else ''}"


def _write_text(text: str) -> Iterator[str]:
    """Return paragraphs; those with lines that are set in keep their lines."""
    for number, paragraph in enumerate(text.split("\n\n")):
        if number:
            yield ".PP"
        lines = [_escape_line(line) for line in paragraph.splitlines()]
        is_literal = _LITERAL.search(paragraph) is not None
        yield from [".nf", *lines, ".fi"] if is_literal else lines


def _escape_line(line: str) -> str:
    """Escape a line of text, also where it begins like a request of roff."""
    escaped = _escape(line)
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped


def _escape(text: str) -> str:
    """Escape signs that roff would read or change."""
    return text.replace("\\", "\\e").replace("-", "\\-").replace("~", "\\(ti").replace("^", "\\(ha")


def run() -> None:
    """Print the manual page of all commands, for man.

    To read it: upscaled man | man -l -. To keep it:
    upscaled man > ~/.local/share/man/man1/upscaled.1
    """
    from upscaled.cli import build_app  # which imports this module

    typer.echo(write_page(describe_commands(build_app())), nl=False)
