"""Files that are placed whole: written beside where they belong, checked there, then moved."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from upscaled_models.errors import ModelRefused

Writer = Callable[[Path], None]
"""Fills the file at a path with its contents."""


def copier(file: Path) -> Writer:
    """What copies `file` to the path it is given.

    Raises:
        ModelRefused: there is no such file.
    """

    def copy(path: Path) -> None:
        shutil.copyfile(file, path)

    if not file.is_file():
        raise ModelRefused(f"{file}: there is no such file")
    return copy


@contextmanager
def incoming_file(target: Path, write: Writer) -> Iterator[Path]:
    """A private file beside `target`, filled by `write`, gone afterwards unless it was moved there.

    What is checked is then what is placed, even if the user's own file changes meanwhile.
    """
    target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".incoming-", suffix=target.suffix, dir=target.parent)
    os.close(handle)
    incoming = Path(name)
    try:
        write(incoming)
        incoming.chmod(0o644)
        yield incoming
    finally:
        incoming.unlink(missing_ok=True)


def write_atomically(path: Path, data: bytes) -> None:
    """Replace what is at `path` at once, readable by everyone."""
    handle, name = tempfile.mkstemp(prefix=".incoming-", dir=path.parent)
    with os.fdopen(handle, "wb") as opened:
        opened.write(data)
    Path(name).chmod(0o644)
    os.replace(name, path)
