"""`upscaled image`: upscale files on this machine, without the HTTP service.

The service's limits on file size and input sides do not hold here; what a picture may grow to is
bounded by memory alone (`upscaled.upscale.result.MAX_RESULT_SIDE_PX`).
"""

import itertools
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Final

import typer

from upscaled.batch.discovery import LIST, Finder, Source, read_names
from upscaled.batch.files import BatchAborted
from upscaled.batch.outcome import Kind
from upscaled.batch.run import Stop
from upscaled.batch.standard_streams import InputPicture, OutputStream
from upscaled.cli.batch import BatchCommand
from upscaled.cli.batch_options import BatchOptions, with_batch_options
from upscaled.cli.batch_places import ResultPlace, find_place, is_same_place, parse_place
from upscaled.cli.batch_report import BatchReport

_STDIN_FD: Final = 0

Files = Annotated[
    list[str],
    typer.Argument(
        metavar="FILES",
        help="Files, folders, s3://BUCKET/PREFIX, quoted patterns such as 'in/**/*.png', or - for "
        "names on standard input, one per line (with -o FILE or -o -: for a picture there).",
    ),
]
OutputDir = Annotated[
    str | None,
    typer.Option(
        "-o",
        "--output-dir",
        metavar="DIR",
        help="Folder for the results, or s3://BUCKET/PREFIX; by default each result is beside its "
        "file. For one picture also a file that ends in .jpg, .png, .webp or .avif, which chooses "
        "the format, or - for standard output.",
    ),
]
EndsInNull = Annotated[
    bool,
    typer.Option("-0", "--null", help="Names on standard input end in NUL, not in a line feed."),
]
IgnoresUnsupported = Annotated[
    bool,
    typer.Option(
        "--ignore-unsupported",
        help="Exit with status 0 even if pictures are in formats that are not enabled.",
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Report what would be done, by which models and in what time; do nothing."
    ),
]


@with_batch_options
def run(
    files: Files,
    options: BatchOptions,
    output_dir: OutputDir = None,
    ends_in_null: EndsInNull = False,
    ignores_unsupported: IgnoresUnsupported = False,
    is_dry: DryRun = False,
) -> None:
    """Upscale pictures: FILE.png becomes FILE-x4.jpg, or .png where it is see-through (or has 16
    bits a channel, and UPSCALED_DEEP_PNG is set).

    Pictures that the scale does not make as wide as --width or as high as --height fail. --suffix
    -large names the result FILE-large.jpg.

    In a pipe, -o - writes one picture to standard output and nothing else:
    upscaled image - --scale 2 --format png -o - <small.jpg >large.png

    What was found in a folder or by a pattern keeps its place below DIR. Hidden names are passed
    over, links to folders are not followed, files that are no images are counted, pictures in
    formats that are not enabled are named, with the setting that enables theirs if there is one.
    Where two results would have one name, the second is FILE.png-x4.jpg; a name too long for a
    file is cut, and ends in ~ and ten digits of its own.

    Buckets are those of UPSCALED_S3_ENDPOINT or Amazon's, with the credentials of AWS's own
    variables or the machine's role; what lies below a prefix is treated as in a folder. There each
    result says itself what it was made of, and no journal lies beside it.

    What is done is skipped: the same content with the same settings, whatever its name. A journal
    in DIR (.upscaled-journal.sqlite3) knows it; delete it, with the results, to begin anew. A run
    that was killed goes on where it was. What this command did not make is never replaced.

    --dry-run opens the models and reads the files: outcome is then the one that a run would have,
    and models and expected_s (seconds of the device) replace the timings.

    On a terminal there is a bar. Elsewhere standard output has one JSON object a line for each
    image: source, result, outcome (upscaled, copied, skipped, unsupported, failed), error_code and
    error (null where it went well), model, source_bytes, source_px (width, height), result_bytes,
    result_px, seconds, decode_s, network_s, encode_s. The last line is {"summary": {...}}: how
    many files by outcome (passed_over: no images), seconds, images_per_s, megapixels_per_s.

    Exit status: 0, 1 if an image failed, is in a format that is not enabled, or no result can be
    written any more, 2 for a wrong call, 130 after Ctrl-C, 143 after SIGTERM.
    """
    place = find_place(output_dir)
    _check_call(files, place, ends_in_null=ends_in_null)
    if place.is_for_one:
        _check_single(files, place, is_json=options.is_json, is_dry=is_dry)
    batch = BatchCommand(options, place.output, target=place.target, is_dry=is_dry)
    batch.run(_list_sources(batch, files, place, b"\0" if ends_in_null else b"\n"))
    _exit_by_outcome(batch, place, ignores_unsupported=ignores_unsupported)


def _check_call(files: list[str], place: ResultPlace, *, ends_in_null: bool) -> None:
    """Refuse a call that contradicts itself, before anything is read or written."""
    if ends_in_null and LIST not in files:
        raise typer.BadParameter("-0 applies only to names on standard input: give - as well")
    if files.count(LIST) > 1:
        raise typer.BadParameter("standard input can be read once: give one -")
    if LIST in files and sys.stdin is None:
        raise typer.BadParameter("there is no standard input")
    if place.target is not None or isinstance(place.output, OutputStream):
        return
    for source in map(parse_place, files):
        if isinstance(source, Path) and not os.path.isdir(source):
            continue
        kind = "a folder" if isinstance(source, Path) else "in a bucket"
        if place.output is None:
            raise typer.BadParameter(f"{source} is {kind}: -o says where its results go")
        if is_same_place(source, place.output):
            raise typer.BadParameter(f"{source} is the output folder itself")


def _check_single(files: list[str], place: ResultPlace, *, is_json: bool, is_dry: bool) -> None:
    """Refuse options that contradict an `-o` for the result of one picture."""
    what = "one file" if place.target else "standard output"
    if len(files) != 1 or not (files[0] == LIST or os.path.isfile(files[0])):
        raise typer.BadParameter(f"-o {place.text} is {what}: give the name of one picture, or -")
    if is_json and place.target is None and not is_dry:
        raise typer.BadParameter("--json: standard output has the picture")
    if files[0] == LIST:
        return
    if place.target is not None and is_same_place(place.target, Path(files[0])):
        raise typer.BadParameter(f"-o {place.text} is the picture itself")


def _exit_by_outcome(batch: BatchCommand, place: ResultPlace, *, ignores_unsupported: bool) -> None:
    """Exit with the status that the command promises, if it is not 0."""
    if batch.stop.signals:
        advice = "" if place.is_for_one else "; run the same command again to continue"
        print(f"upscaled: stopped{advice}", file=sys.stderr)
        raise typer.Exit(128 + batch.stop.signals[0])
    counts = batch.report.summary.counts
    if counts[Kind.FAILED] or (counts[Kind.UNSUPPORTED] and not ignores_unsupported):
        raise typer.Exit(1)


def _list_sources(
    batch: BatchCommand, files: list[str], place: ResultPlace, separator: bytes
) -> Iterator[Source]:
    """List the sources: a picture on standard input, or what the names lead to."""
    is_over = batch.stop.requested
    if place.is_for_one and files == [LIST]:
        return iter([Source(InputPicture(_STDIN_FD, is_over), is_named=True)])
    output = None if isinstance(place.output, OutputStream) else place.output
    names = read_names(_STDIN_FD, separator, is_over)
    finder = Finder(output, names, batch.settings.s3_endpoint)
    return _find_sources(finder, files, batch.report, batch.stop)


def _find_sources(
    finder: Finder, files: list[str], report: BatchReport, stop: Stop
) -> Iterator[Source]:
    """Yield the sources; for the progress bar a second thread counts them meanwhile."""

    def count() -> None:
        seen = itertools.takewhile(lambda _: not stop.requested.is_set(), finder.find(files))
        with suppress(BatchAborted):  # which ends the batch itself
            report.expect(sum(1 for _ in seen))

    if report.has_bar and LIST not in files:
        threading.Thread(target=count, daemon=True).start()
    yield from finder.find(files)
