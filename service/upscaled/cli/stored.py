"""The stored state, for the length of one command."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from upscaled.config import load_settings
from upscaled.state import State, StateError, open_state


@contextmanager
def opened_state() -> Iterator[State]:
    """The state that the settings name; a refusal is printed with its reason, with exit status 1.

    Safe while a server runs on the same state.
    """
    try:
        with open_state(load_settings()) as state:
            yield state
    except (StateError, OSError) as error:
        typer.echo(f"upscaled: {describe_trouble(error)}", err=True)
        raise typer.Exit(1) from None


def describe_trouble(error: StateError | OSError) -> str:
    """Why the state cannot be used; a file or folder that is to blame is named."""
    if isinstance(error, OSError) and error.filename:
        return f"cannot use {error.filename}: {error.strerror}"
    return str(error)
