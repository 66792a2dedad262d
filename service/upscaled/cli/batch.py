"""What `upscaled image` and `upscaled watch` share: opening everything, running, ending."""

import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from upscaled.cli.batch_report import BatchReport
from upscaled.config import Settings, load_settings
from upscaled_models.errors import ModelError

if TYPE_CHECKING:
    from upscaled.batch.discovery import Source
    from upscaled.batch.in_flight import Stop
    from upscaled.batch.journal import Journal

BESIDE_JOURNAL = "files-beside.sqlite3"
"""In the data folder: the journal of results that lie beside their sources."""

OnSignal = Callable[["Stop", int], None]
"""Called with a signal's number and how many have come before."""
MakeSources = Callable[["Stop", BatchReport], Iterator["Source"]]


def check_scale(scale: int | None) -> int | None:
    """Refuse a scale that is neither 2 nor 4; None stands for one that was not given."""
    if scale not in (2, 4, None):
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


@dataclass(frozen=True, slots=True)
class Order:
    """What is asked for. output_dir: None: results lie beside their sources."""

    scale: int
    model: str | None
    output_dir: Path | None
    is_json: bool
    is_overwriting: bool

    def load_settings(self) -> Settings:
        """Raises `SettingsError`."""
        return load_settings(None, **({f"model_x{self.scale}": self.model} if self.model else {}))


def run_order(
    order: Order, settings: Settings, make_sources: MakeSources, on_signal: OnSignal
) -> BatchReport:
    """Run one batch to its end, and say how it went.

    Raises:
        typer.Exit: it could not begin or go on; standard error says why.
    """
    # Threads of the network that wait must not spin on cores that decode and encode; read once,
    # when its library is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from upscaled.batch.file_job import open_file_upscaler
    from upscaled.batch.in_flight import Stop
    from upscaled.batch.outcome import BatchAborted
    from upscaled.batch.run import run_batch
    from upscaled.cli.packaged_models import install_packaged_models

    install_packaged_models(settings)
    if order.output_dir:
        require_writable(order.output_dir)
    with _open_journal(order.output_dir, settings) as journal:
        asked_by = "--model" if order.model else None
        stop, report = Stop(), BatchReport(is_json=order.is_json)
        try:
            with (
                open_file_upscaler(
                    order.scale,
                    settings,
                    journal,
                    order.output_dir,
                    stop,
                    is_overwriting=order.is_overwriting,
                    on_part=report.on_part,
                    asked_by=asked_by,
                ) as upscaling,
                _heard(stop, on_signal),
                report,
            ):
                sources = make_sources(stop, report)
                run_batch(sources, upscaling, report.add, stop)
        except BatchAborted as error:
            report.conclude()
            raise _give_up(str(error), error.exit_status) from None
        except ModelError as error:
            raise _give_up(str(error), status=2) from None
    report.conclude()
    return report


def require_writable(folder: Path) -> None:
    """Make the folder and a nameless file in it: modes alone do not show what a disk allows."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        reason = "is a file" if isinstance(error, FileExistsError) else error.strerror
        raise _give_up(f"output folder {folder}: {reason}") from None


def _give_up(reason: str, status: int = 1) -> typer.Exit:
    print(f"upscaled: {reason}", file=sys.stderr)
    return typer.Exit(status)


def _open_journal(output_dir: Path | None, settings: Settings) -> "Journal":
    """The output folder's; for results beside their sources, one in the data folder.

    The latter is a help that nothing depends on: where it cannot be had, nothing is remembered.
    """
    from upscaled.batch.journal import FILE_NAME, Journal, JournalUnusable

    if output_dir:
        try:
            return Journal(output_dir / FILE_NAME)
        except JournalUnusable as error:
            raise _give_up(str(error)) from None
    try:
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = settings.data_dir / BESIDE_JOURNAL
        # It names people's pictures, and a data folder that was there may be open to others.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        return Journal(path)
    except (OSError, JournalUnusable) as error:
        print(f"upscaled: what is done will not be remembered: {error}", file=sys.stderr)
        return Journal(None)


@contextmanager
def _heard(stop: "Stop", on_signal: OnSignal) -> Iterator[None]:
    """SIGINT and SIGTERM end the batch, not the process, during the block."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard = 0

    def hear(number: int, _frame: FrameType | None) -> None:
        nonlocal heard
        heard += 1
        on_signal(stop, number)
        if heard > 1:
            signal.signal(number, signal.SIG_DFL)  # a third signal ends it at once

    before = {number: signal.signal(number, hear) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
