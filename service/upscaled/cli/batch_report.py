"""Report a batch as it runs: a progress bar and lines on a terminal, JSON lines elsewhere."""

import json
import os
import sys
import time
from typing import TYPE_CHECKING, Self

from upscaled.batch.outcome import Kind, Outcome, Summary

if TYPE_CHECKING:
    from rich.progress import Progress


class BatchReport:
    """Report a batch during the block; `add` is called for one outcome at a time.

    Standard output gets a line for each image: JSON where it is no terminal or `is_json`. Failures
    and the summary go to standard error too. The bar is drawn where there is a terminal for it.
    Where a picture is written to standard output, standard error alone gets lines, and where that
    is no terminal only those of failures. In a dry run (`is_dry`) the lines say what would be done.
    """

    def __init__(
        self, *, is_json: bool, streams_result: bool = False, is_dry: bool = False
    ) -> None:
        self.summary = Summary()
        self._is_dry = is_dry
        self._streams_result = streams_result
        self._is_json = not streams_result and (is_json or not _is_terminal(sys.stdout))
        self._parts: dict[str, float] = {}
        self._started = time.monotonic()
        may_draw = not (self._is_json and _is_terminal(sys.stdout))
        is_on_stderr = self._is_json or streams_result
        self._bar = _make_bar(is_on_stderr=is_on_stderr, may_draw=may_draw)
        self._task = self._bar.add_task("", total=None, throughput="")

    def __enter__(self) -> Self:
        self._started = time.monotonic()
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    @property
    def has_bar(self) -> bool:
        """Return whether a bar is drawn, which shows the number of all files."""
        return not self._bar.disable

    def expect(self, files: int) -> None:
        """Set the number of all files; may be called from any thread."""
        self._bar.update(self._task, total=files)

    def on_part(self, source: str, done_part: float) -> None:
        """Show the done part of one file, 0 to 1; may be called from any thread."""
        self._parts[source] = done_part
        self._advance()

    def unfinished_parts(self) -> dict[str, float]:
        """Return the done part of each file that still waits for the device."""
        return {name: part for name, part in list(self._parts.items()) if part < 1}

    def add(self, outcome: Outcome) -> None:
        """Count and print the outcome of one file."""
        self.summary.add(outcome)
        self._parts.pop(outcome.source, None)
        if outcome.is_image and self._is_json:
            line = outcome.to_dry_json() if self._is_dry else outcome.to_json()
            print(json.dumps(line), flush=True)
        if outcome.kind in (Kind.FAILED, Kind.UNSUPPORTED):
            self._print(f"upscaled: {outcome.source}: {outcome.error}")
        elif outcome.is_image and not self._is_json:
            self._print(_describe(outcome), is_result=True)
        self._advance()

    def conclude(self) -> None:
        """Print the summary of the batch."""
        if self._streams_result and not self.has_bar:
            return
        seconds = time.monotonic() - self._started
        summary = self.summary.to_dry_json() if self._is_dry else self.summary.to_json(seconds)
        if self._is_json:
            print(json.dumps({"summary": summary}), flush=True)
        self._print(self.summary.describe_dry() if self._is_dry else self.summary.describe(seconds))

    def _advance(self) -> None:
        completed = self.summary.files + sum(list(self._parts.values()))
        figures = self.summary.to_json(time.monotonic() - self._started)
        text = f"{figures['images_per_s']:.1f} images/s {figures['megapixels_per_s']:.1f} MP/s"
        self._bar.update(self._task, completed=completed, throughput=text)

    def _print(self, line: str, *, is_result: bool = False) -> None:
        """Print a line, above the bar if there is one."""
        if is_result and self._streams_result and not self.has_bar:
            return
        line = to_printable(line)
        if self._bar.live.is_started:
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            print(line, file=sys.stdout if is_result else sys.stderr, flush=True)


def to_printable(line: str) -> str:
    """Replace what is no text in a name, and characters that would control a terminal."""
    text = os.fsencode(line).decode(errors="replace")
    return "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in text)


def _describe(outcome: Outcome) -> str:
    text = outcome.result or outcome.source
    if outcome.result_px:
        text += f"  {outcome.result_px[0]} x {outcome.result_px[1]} px"
    if outcome.expected is not None:
        models = " or ".join(outcome.expected.models)
        return f"{text}  by {models} in about {outcome.expected.device_s:.1f} s"
    if outcome.kind is Kind.UPSCALED and outcome.record:
        return f"{text}  by {outcome.record.model} in {outcome.seconds:.1f} s"
    return f"{text}  {'done already' if outcome.kind is Kind.SKIPPED else 'copied'}"


def _is_terminal(stream: object) -> bool:
    isatty = getattr(stream, "isatty", None)
    return bool(isatty and isatty())


def _make_bar(*, is_on_stderr: bool, may_draw: bool) -> "Progress":
    from rich import progress
    from rich.console import Console

    stderr = Console(stderr=True)
    return progress.Progress(
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("{task.fields[throughput]}"),
        progress.TextColumn("left:"),
        progress.TimeRemainingColumn(),
        console=stderr if is_on_stderr else Console(),
        transient=True,
        disable=not (may_draw and stderr.is_terminal),
    )
