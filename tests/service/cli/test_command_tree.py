from typing import Annotated

import pytest
import typer

from upscaled.cli.command_tree import Command, Option, describe_commands

Colour = Annotated[str, typer.Option("-c", "--colour", metavar="red|blue", help="of the\n  walls")]


@pytest.fixture
def app() -> typer.Typer:
    """A group and a command with a parameter of each kind."""
    app, group = typer.Typer(help="Paints."), typer.Typer(help="Rooms.")
    app.callback()(lambda: None)

    @group.command("paint")
    def paint(
        rooms: Annotated[list[str], typer.Argument(metavar="ROOMS", help="to paint")],
        colour: Colour,
        coats: Annotated[int, typer.Option()] = 2,
        is_dry: Annotated[bool, typer.Option("--dry")] = False,
        secret: Annotated[bool, typer.Option("--secret", hidden=True)] = False,
    ) -> None:
        """Paint rooms. Slowly.

        In any weather.
        """

    @group.command("show")
    def show(room: Annotated[str, typer.Argument(metavar="ROOM")] = "") -> None:
        """Show a room."""

    app.add_typer(group, name="rooms")
    return app


def test_a_command_line_is_described_as_its_parser_has_it(app: typer.Typer) -> None:
    root = describe_commands(app)
    assert [command.path for command in root.walk()] == [
        (), ("rooms",), ("rooms", "paint"), ("rooms", "show"),
    ]  # fmt: skip
    (group,) = root.commands
    paint, show = group.commands
    assert (root.help, group.help, paint.summary) == ("Paints.", "Rooms.", "Paint rooms")
    assert paint.help == "Paint rooms. Slowly.\n\nIn any weather."
    assert paint.arguments == (("ROOMS...", "to paint"),)
    assert show.arguments == (("[ROOM]", ""),)
    help_option = Option(("--help",), "Print the help and exit.")
    assert paint.options == (
        Option(("-c", "--colour"), "of the walls", "red|blue", ("red", "blue"), is_required=True),
        Option(("--coats",), "", "COATS"),
        Option(("--dry",), ""),
        help_option,
    )
    assert show.options == group.options == (help_option,)


def test_a_summary_is_the_first_sentence_on_one_line() -> None:
    command = Command(("x",), "Make FILE.png\nlarger: now. And more.\n\nLater.", ())
    assert command.summary == "Make FILE.png larger: now"
