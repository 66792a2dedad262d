"""One file out of a folder; the same bytes on every machine at any time."""

import os
import subprocess
from pathlib import Path

TIME_S = 1_580_601_600
"""The date of every file, unless SOURCE_DATE_EPOCH says another; hatchling takes the same."""


def pack(folder: Path, archive: Path) -> None:
    """Write `folder` to `archive`, a tar file, whole or not at all.

    Nothing in it depends on who packs: owner, date, umask. It is not compressed: wheels are, and
    weights hardly can be.

    Raises:
        OSError: it cannot be written; the text is tar's own.
    """
    time_s = os.environ.get("SOURCE_DATE_EPOCH", TIME_S)
    half_made = archive.with_name(f".{archive.name}.part")
    command = ["tar", "--create", "--format=gnu", "--sort=name", f"--mtime=@{time_s}"]
    command += ["--owner=0", "--group=0", "--numeric-owner", "--mode=u=rwX,go=rX"]
    command += [f"--file={half_made}", f"--directory={folder.parent}", folder.name]
    try:
        finished = subprocess.run(command, stderr=subprocess.PIPE, text=True)
        if finished.returncode != 0:
            raise OSError(finished.stderr.strip())
        half_made.replace(archive)
    finally:
        half_made.unlink(missing_ok=True)
