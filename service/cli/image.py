"""`upscaled image`: upscale files on this machine, without the HTTP service.

The service's limits on file size and input sides do not hold here; what a picture may grow to is
bounded by memory alone (`MAX_RESULT_SIDE_PX`).
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from models.errors import ModelError
from service.config import Settings, load_settings
from service.errors import ResolutionTooHigh, ServiceError

if TYPE_CHECKING:
    from service.engine.engine import Engine
    from service.upscale.lane import Lane

OnTile = Callable[[int, int], None]

# 20,000 x 20,000 pixels take 1.2 GB while they are made; JPEG itself ends at 65,500 a side.
MAX_RESULT_SIDE_PX: Final = 20_000


class CannotWrite(Exception):
    """A result could not be written; the text names its file and the reason."""


def register(app: typer.Typer) -> None:
    app.command("image")(upscale_images)


def _check_scale(scale: int) -> int:
    if scale not in (2, 4):
        raise typer.BadParameter("must be 2 or 4")
    return scale


def upscale_images(
    files: Annotated[list[Path], typer.Argument(metavar="FILES", help="JPEG, PNG or WebP files")],
    scale: Annotated[int, typer.Option(metavar="2|4", callback=_check_scale, help="2 or 4")],
    output_dir: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output-dir",
            metavar="DIR",
            help="folder of the results; beside each file if none",
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="a model's name, see `upscaled models list`")
    ] = None,
) -> None:
    """Upscale pictures: FILE.png becomes FILE-x4.jpg, or FILE-x4.png where it has transparency.

    So does one of 16 bits a channel where UPSCALED_DEEP_PNG says so. Prints the path of each
    result. A file that fails is told and the others go on; the exit status is then 1. A result of
    an earlier run is replaced, a source never.
    """
    settings = load_settings(None, **({f"model_x{scale}": model} if model else {}))
    if output_dir:
        _require_writable(output_dir)
    engine = _open_engine(settings, scale, asked_by="--model" if model else None)
    if not _upscale_files(files, output_dir, scale, engine, settings):
        raise typer.Exit(1)


def _upscale_files(
    files: list[Path], output_dir: Path | None, scale: int, engine: "Engine", settings: Settings
) -> bool:
    """One file after the other; whether none failed."""
    from service.upscale.scheduler import Scheduler

    taken: dict[Path, Path] = {}
    failed = 0
    with Scheduler() as scheduler:
        for source in files:
            try:
                with scheduler.open_lane(engine) as lane:
                    target = _upscale_file(source, output_dir, scale, lane, settings, taken)
            except _failures() as error:
                failed += 1
                print(f"upscaled: {_describe(source, error)}", file=sys.stderr)
            else:
                taken[target] = source
                print(target)
    return not failed


def _require_writable(folder: Path) -> None:
    """Make the folder and a nameless file in it: modes alone do not tell what a disk allows."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        reason = "is a file" if isinstance(error, FileExistsError) else error.strerror
        print(f"upscaled: output folder {folder}: {reason}", file=sys.stderr)
        raise typer.Exit(1) from None


def _open_engine(settings: Settings, scale: int, *, asked_by: str | None) -> "Engine":
    from service.engine.choice import open_engine

    try:
        return open_engine(settings, scale, asked_by=asked_by)
    except ModelError as error:
        print(f"upscaled: {error}", file=sys.stderr)
        raise typer.Exit(2) from None


def _upscale_file(
    source: Path,
    output_dir: Path | None,
    scale: int,
    lane: "Lane",
    settings: Settings,
    taken: Mapping[Path, Path],
) -> Path:
    """Upscale one file; returns where the result is. `taken` are this run's results so far."""
    from service.image.decode import decode
    from service.image.probe import probe
    from service.upscale.job import run_job

    started = time.perf_counter()
    data = source.read_bytes()
    info = probe(data, settings.formats)
    if max(info.width_px, info.height_px) * scale > MAX_RESULT_SIDE_PX:
        raise ResolutionTooHigh(
            f"{info.width_px} x {info.height_px} px would become longer than "
            f"{MAX_RESULT_SIDE_PX} px at scale {scale}"
        )
    ending = "png" if info.has_alpha or (info.is_deep and settings.deep_png) else "jpg"
    target = (output_dir or source.parent) / f"{source.stem}-x{scale}.{ending}"
    if target in taken:
        raise FileExistsError(f"{target} is already the result of {taken[target]}")
    with _progress_bar(source.name) as on_tile:
        finished = run_job(
            data,
            scale,
            lane,
            settings,
            on_tile,
            decode=partial(decode, formats=settings.formats),
            max_output_side_px=MAX_RESULT_SIDE_PX,
        )
    _write_atomically(target, finished.data)
    print(
        f"{source.name}: {finished.width_px} x {finished.height_px} px by {finished.model} "
        f"in {time.perf_counter() - started:.1f} s",
        file=sys.stderr,
    )
    return target


def _write_atomically(target: Path, data: bytes) -> None:
    """A reader never sees half a file, and nothing is left behind if the disk is full."""
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        try:
            partial.write_bytes(data)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise CannotWrite(f"{target}: cannot be written: {error.strerror}") from error


def _failures() -> tuple[type[Exception], ...]:
    from service.engine.engine import EngineOutOfMemory

    return (ServiceError, OSError, CannotWrite, MemoryError, EngineOutOfMemory)


def _describe(source: Path, error: Exception) -> str:
    if isinstance(error, CannotWrite):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{source}: {error.strerror}"
    return f"{source}: {str(error) or type(error).__name__}"


@contextmanager
def _progress_bar(name: str) -> Iterator[OnTile]:
    """Draws the share of tiles done, on a terminal only."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task(name, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
