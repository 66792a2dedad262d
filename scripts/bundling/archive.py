"""One file out of a folder; the same bytes on every machine at any time."""

import os
import tarfile
from pathlib import Path

TIME_S = 1_580_601_600
"""The date of every file, unless SOURCE_DATE_EPOCH says another; hatchling takes the same."""


def pack(folder: Path, archive: Path) -> None:
    """Write `folder` to `archive`, a tar file, whole or not at all.

    It is not compressed: wheels are, and weights hardly can be.
    """
    time_s = int(os.environ.get("SOURCE_DATE_EPOCH", TIME_S))
    half_made = archive.with_name(f".{archive.name}.part")
    try:
        with tarfile.open(half_made, "w", format=tarfile.GNU_FORMAT) as packed:
            for path in [folder, *sorted(folder.rglob("*"))]:
                entry = packed.gettarinfo(path, path.relative_to(folder.parent).as_posix())
                _remove_owner(entry, time_s)
                if entry.isfile():
                    with path.open("rb") as content:
                        packed.addfile(entry, content)
                else:
                    packed.addfile(entry)
        half_made.replace(archive)
    finally:
        half_made.unlink(missing_ok=True)


def _remove_owner(entry: tarfile.TarInfo, time_s: int) -> None:
    """Take away whatever depends on who packs: owner, date, umask."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mtime = time_s
    entry.mode = 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
