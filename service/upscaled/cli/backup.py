"""`upscaled backup`: copy the database into one file while the service runs."""

from pathlib import Path
from typing import Annotated

import typer

from upscaled.cli.console import fail
from upscaled.config import load_settings
from upscaled.state import StateError
from upscaled.state.backup import back_up


def run(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to make; must not exist.")],
) -> None:
    """Copy API keys, credits and the records of results into FILE; the service may be running.

    For SQLite, the default database; PostgreSQL has pg_dump. Models of your own are not in it:
    copy the folder models/own beside the database too.
    """
    settings = load_settings()
    try:
        size_bytes = back_up(settings.database_url, settings.data_dir, file)
    except FileExistsError as error:
        reason = error.args[0] if error.errno is None else f"{file} exists already"
        raise fail(reason) from None
    except StateError as error:
        raise fail(f"cannot back up to {file}: {error}") from None
    except OSError as error:  # its own text names the unfinished file
        raise fail(f"cannot back up to {file}: {error.strerror}") from None
    typer.echo(f"Backed up the database ({size_bytes} bytes, verified) to {file}")
    results = settings.results_url or settings.results_dir
    typer.echo(f"Not in it: models ({settings.models_dir}) and stored results ({results})")
