"""Describe the command line as plain data, for the completion of shells and the manual page."""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import typer.main

PROGRAM: Final = "upscaled"
_HELP: Final = "--help"
_CHOICE: Final = "|"
"""Separates the values of a metavar that lists all of them, as in `2|4`."""


@dataclass(frozen=True, slots=True)
class Option:
    """An option of a command.

    value: the name of its value, "" where it has none. choices: all values, where they are few.
    """

    flags: tuple[str, ...]
    help: str
    value: str = ""
    choices: tuple[str, ...] = ()
    is_required: bool = False


@dataclass(frozen=True, slots=True)
class Command:
    """A command, or a group of commands, by the words behind the program's name.

    help: paragraphs. arguments: (name, help) of each; a name in brackets may be left out.
    """

    path: tuple[str, ...]
    help: str
    options: tuple[Option, ...]
    arguments: tuple[tuple[str, str], ...] = ()
    commands: "tuple[Command, ...]" = ()

    @property
    def summary(self) -> str:
        """Return the first sentence of the help, without its full stop."""
        first = " ".join(self.help.split("\n\n")[0].split())
        return first.split(". ")[0].rstrip(".")

    def walk(self) -> "Iterator[Command]":
        """Return the command and all its subcommands, parents first."""
        yield self
        for command in self.commands:
            yield from command.walk()


def describe_commands(app: typer.Typer) -> Command:
    """Return the whole command line of an application, as its parser has it."""
    return _describe(typer.main.get_command(app), ())


def _describe(command: Any, path: tuple[str, ...]) -> Command:  # noqa: ANN401  (typer hides its classes)
    parameters = [each for each in command.params if not getattr(each, "hidden", False)]
    options = (_describe_option(each) for each in parameters if each.param_type_name == "option")
    arguments = [each for each in parameters if each.param_type_name == "argument"]
    children = getattr(command, "commands", {})
    return Command(
        path=path,
        help=inspect.cleandoc(command.help or ""),
        options=(*options, Option((_HELP,), "Print the help and exit.")),
        arguments=tuple((_name_argument(each), each.help or "") for each in arguments),
        commands=tuple(_describe(child, (*path, name)) for name, child in children.items()),
    )


def _describe_option(option: Any) -> Option:  # noqa: ANN401
    flags = (*option.opts, *option.secondary_opts)
    help_text = " ".join((option.help or "").split())
    if option.is_flag:
        return Option(flags, help_text)
    value = option.metavar or option.name.upper()
    choices = tuple(value.split(_CHOICE)) if _CHOICE in value else ()
    return Option(flags, help_text, value, choices, option.required)


def _name_argument(argument: Any) -> str:  # noqa: ANN401
    name = (argument.metavar or argument.name.upper()).strip("[]")
    name += "..." if argument.nargs != 1 else ""
    return name if argument.required else f"[{name}]"
