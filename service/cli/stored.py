"""The stored state, for the length of one command."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from service.config import load_settings
from service.state import State, StateError, open_state


@contextmanager
def opened_state() -> Iterator[State]:
    """The state that the settings name; what it refuses is told in its words, with exit status 1.

    Safe while a server runs on the same state.
    """
    try:
        with open_state(load_settings()) as state:
            yield state
    except (StateError, OSError) as error:
        typer.echo(f"upscaled: {error}", err=True)
        raise typer.Exit(1) from None
