"""Folders, buckets and streams that a batch names: parse, try out and open them."""

import hashlib
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import typer

from upscaled.batch.bucket_source import S3Url, open_bucket
from upscaled.batch.files import BatchAborted
from upscaled.batch.journal import FILE_NAME, Journal, JournalUnusable
from upscaled.batch.output_store import Output
from upscaled.batch.standard_streams import STREAM, OutputStream
from upscaled.cli.console import fail
from upscaled.config import Settings
from upscaled.image.formats.table import ENCODED

Place = Path | S3Url
"""A folder or a bucket."""

BESIDE_JOURNAL: Final = "files-beside.sqlite3"
"""Name, in the data folder, of the journal of results that lie beside their sources."""
_TRIAL: Final = ".upscaled-trial"
"""Name of an object that is deleted at once."""

FORMATS_OF_ENDS: Final = {
    f".{suffix}": each.name.lower() for each in ENCODED for suffix in each.suffixes
}
"""The formats of one picture's result, by the end of the file that `-o` names."""


def parse_place(text: str) -> Place:
    """Return the folder or bucket that an option names."""
    return S3Url.parse(text) or Path(text)


@dataclass(frozen=True, slots=True)
class ResultPlace:
    """Place of the results, as `-o` names it in `text`.

    output: a folder, a bucket, standard output, or None for results beside their sources or in
    `target`, the file of one picture's result.
    """

    text: str | None = None
    output: Path | S3Url | OutputStream | None = None
    target: Path | None = None

    @property
    def is_for_one(self) -> bool:
        """Return whether it can hold the result of one picture only."""
        return self.target is not None or isinstance(self.output, OutputStream)


def find_place(text: str | None) -> ResultPlace:
    """Return the place that `-o` names: the end of a format makes it a file, `-` a stream.

    Raises:
        typer.BadParameter: a picture would go to a terminal, or standard output is closed.
    """
    if text is None:
        return ResultPlace()
    if text == STREAM:
        if sys.stdout is None:
            raise typer.BadParameter("-o -: there is no standard output")
        if sys.stdout.isatty():
            raise typer.BadParameter(
                "-o - writes a picture to standard output, which is a terminal: "
                "redirect it to a file or a program, or name a file"
            )
        return ResultPlace(text, output=OutputStream())
    place = parse_place(text)
    is_file = isinstance(place, Path) and place.suffix.lower() in FORMATS_OF_ENDS
    if is_file and not os.path.isdir(text):
        return ResultPlace(text, target=Path(os.path.abspath(text)))
    return ResultPlace(text, output=place)


def is_same_place(one: Place, other: Place) -> bool:
    """Return whether two names are those of one folder or file, or of one prefix."""
    if isinstance(one, Path) and isinstance(other, Path):
        # False where a name is too long or behind a closed folder, for which Path would raise.
        return os.path.exists(one) and os.path.exists(other) and one.samefile(other)
    return one == other


def open_output(
    settings: Settings, output: Place | OutputStream | None, journal: Journal, *, is_dry: bool
) -> Output:
    """Open the store of the results; None puts each beside its source."""
    from upscaled.batch.output_bucket import OutputBucket
    from upscaled.batch.output_folder import OutputFolder

    if isinstance(output, OutputStream):
        if not is_dry:
            output.take_over()
        return output
    if isinstance(output, S3Url):
        return OutputBucket(output, open_bucket(output.bucket, settings.s3_endpoint), journal)
    return OutputFolder(output, journal)


def open_journal(
    settings: Settings, output: Place | OutputStream | None, *, is_dry: bool
) -> Journal:
    """Open the journal of the output folder, of a bucket, or of results beside their sources.

    The latter two lie in the data folder and only save work: where one cannot be opened, the batch
    runs without. A dry run uses one that exists and makes none.
    """
    if isinstance(output, OutputStream):
        return Journal(None)
    path = _name_journal(settings, output)
    if not is_dry and isinstance(output, Path):
        require_writable(output)
    if is_dry or isinstance(output, Path):
        try:
            return Journal(path if os.path.exists(path) or not is_dry else None)
        except JournalUnusable as error:
            raise fail(error) from None
    if output is not None:
        require_writable_bucket(output, settings.s3_endpoint)
    return _open_beside(path, "what is done" if output is None else "renamed results")


def _open_beside(path: Path, what: str) -> Journal:
    """Open a journal of the data folder; without it `what` is not remembered."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A journal holds names of pictures, and an existing data folder may be readable by others.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        return Journal(path)
    except (OSError, JournalUnusable) as error:
        typer.echo(f"upscaled: {what} will not be remembered: {error}", err=True)
        return Journal(None)


def _name_journal(settings: Settings, output: Place | None) -> Path:
    if isinstance(output, Path):
        return output / FILE_NAME
    if output is None:
        return settings.data_dir / BESIDE_JOURNAL
    digest = hashlib.sha256(str(output).encode()).hexdigest()
    return settings.data_dir / f"files-{digest[:20]}.sqlite3"


def require_writable(folder: Path) -> None:
    """Make the output folder, and test whether files can be written in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        reason = "is a file" if isinstance(error, FileExistsError) else error.strerror
        raise fail(f"output folder {folder}: {reason}") from None


def require_writable_bucket(url: S3Url, endpoint: str) -> None:
    """Put a small object, and delete it where that is allowed; else end the command and say why."""
    with _exit_on_failure(f"output bucket {url}"):
        open_bucket(url.bucket, endpoint).try_out(url.below(_TRIAL))


def require_readable_bucket(url: S3Url, endpoint: str) -> None:
    """List the first object, or end the command and say why the bucket does not list it."""
    with _exit_on_failure(f"input bucket {url}"):
        next(open_bucket(url.bucket, endpoint).list(url.key), None)


@contextmanager
def _exit_on_failure(what: str) -> Iterator[None]:
    try:
        yield
    except BatchAborted as error:
        raise fail(error) from None
    except OSError as error:
        raise fail(f"{what}: {error.strerror}") from None
