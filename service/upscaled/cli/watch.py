"""`upscaled watch`: upscale a folder's files as they arrive, until a signal stops it."""

import os
import signal
from pathlib import Path
from typing import Annotated

import typer

from upscaled.batch.bucket_source import S3Url
from upscaled.batch.discovery import Finder
from upscaled.batch.watcher import Watcher
from upscaled.cli.batch import BatchCommand
from upscaled.cli.batch_options import BatchOptions, with_batch_options
from upscaled.cli.batch_places import is_same_place, parse_place, require_readable_bucket

InputDir = Annotated[
    str, typer.Argument(metavar="IN", help="Folder that files arrive in, or s3://BUCKET/PREFIX.")
]
OutputDir = Annotated[
    str, typer.Argument(metavar="OUT", help="Folder for the results, or s3://BUCKET/PREFIX.")
]
SettleS = Annotated[
    float,
    typer.Option(
        "--settle", metavar="SECONDS", min=0, max=3600, help="How long a file must not change."
    ),
]


@with_batch_options
def run(
    input_dir: InputDir, output_dir: OutputDir, options: BatchOptions, settle_s: SettleS = 2
) -> None:
    """Upscale the pictures in a folder and new ones, until SIGTERM or Ctrl-C.

    Names, journal, skipping, output and its options are those of `upscaled image IN -o OUT`,
    where they are described. A file is upscaled once it is complete: no process has
    it open for writing, where the system can say, and it has not changed for
    a while. Files that are moved in, also in folders, or changed later are
    upscaled too. The folder is looked through every second, or more rarely where
    that takes long, so that network file systems work as well; a bucket every
    five seconds, whose objects are complete as soon as they are there.

    The first signal ends it cleanly: images under way are finished for at most
    UPSCALED_SHUTDOWN_GRACE_S; the next run upscales the others. Exit status: 0
    after a signal, 1 if it could not begin or the device failed, 2 for a wrong
    call. Images that fail do not end it.
    """
    place, output = parse_place(input_dir), parse_place(output_dir)
    if isinstance(place, Path) and not os.path.isdir(place):
        raise typer.BadParameter(f"{place} is no folder")
    if is_same_place(place, output):
        raise typer.BadParameter(f"{output} is the watched folder itself")
    batch = BatchCommand(options, output)
    endpoint = batch.settings.s3_endpoint
    if isinstance(place, S3Url):
        require_readable_bucket(place, endpoint)
    watcher = Watcher(Finder(output, s3_endpoint=endpoint), place, settle_s=settle_s)
    signal.signal(signal.SIGIO, signal.SIG_IGN)  # see `files.is_being_written`
    batch.run(watcher.wait_for(batch.stop.requested), grace_s=batch.settings.shutdown_grace_s)
