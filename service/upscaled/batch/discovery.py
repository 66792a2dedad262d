"""Find the input files of a batch: files, folders, patterns, and lists of names."""

import errno
import os
import select
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePath
from typing import Final

from upscaled.batch.files import BatchAborted
from upscaled.image.formats.table import sniff

LIST: Final = "-"
"""The argument that stands for names on standard input."""
_ANY_DEPTH: Final = "**"
_MAGIC: Final = frozenset("*?[")
_LOOK_EVERY_S: Final = 0.25
_READ_BYTES: Final = 65_536
# The separators, and a tabulator, are no sign of a picture.
_NOT_IN_NAMES: Final = bytes(set(range(1, 32)) - set(b"\t\n\r"))
# Recognised by more than their first bytes.
_TEXT_FORMATS: Final = frozenset({"SVG"})


class PictureOnInput(BatchAborted):
    """Standard input holds a picture where a list of names belongs."""

    exit_status = 2


TOP: Final = PurePath()
"""The output folder itself, relative to itself."""


@dataclass(frozen=True, slots=True)
class Source:
    """File to upscale.

    folder: that of its result, below the output folder. is_named: it was given by its own name, so
    that it is a failure if it is no image. error: why it, or a folder, cannot be read.
    """

    path: Path
    folder: PurePath = TOP
    is_named: bool = False
    error: OSError | None = None


@dataclass(frozen=True, slots=True)
class Finder:
    """Finder of the sources that arguments name, lazy: it holds the names of one folder at most.

    In folders, hidden names are passed over, links to folders are not followed (so no loop is ever
    walked), and links to files are. A file keeps its path below the folder, or below the fixed
    part of the pattern, by which it was found.

    output_dir: never looked into; None: results lie beside their sources, and folders are errors.
    names: those that `-` stands for.
    """

    output_dir: Path | None
    names: Iterable[str] = ()

    def find(self, arguments: Iterable[str]) -> Iterator[Source]:
        """Find the sources of all arguments, one after the other."""
        for argument in arguments:
            if argument == LIST:
                for name in self.names:
                    yield from self._find_named(name)
            elif is_pattern(argument):
                yield from self._find_like(argument)
            else:
                yield from self._find_named(argument)

    def walk(self, top: Path, depth: int = -1) -> Iterator[Source]:
        """Find every file in a folder, in alphabetical order, a folder's own files first.

        Args:
            depth: how many levels of folders; -1: all.
        """
        left_out = Path(os.path.realpath(self.output_dir)) if self.output_dir else None
        real_top = os.path.realpath(top)
        folders = [TOP]
        while folders:
            folder = folders.pop()
            try:
                files, inside = _list_folder(top / folder)
            except OSError as error:
                yield Source(top / folder, folder, error=error)
                continue
            for name in files:
                yield Source(top / folder / name, folder)
            if len(folder.parts) + 1 != depth:
                folders += [
                    folder / name
                    for name in reversed(inside)
                    if Path(real_top, folder, name) != left_out
                ]

    def _find_named(self, name: str) -> Iterator[Source]:
        path = Path(name)
        if "\0" in name:
            yield Source(path, is_named=True, error=OSError(errno.EINVAL, "is no file name"))
        elif not os.path.isdir(path):  # False for a name that is too long, where Path raises
            yield Source(path, is_named=True)
        elif self.output_dir is None:
            text = "is a folder; -o says where its results go"
            yield Source(path, is_named=True, error=OSError(errno.EISDIR, text))
        else:
            yield from self.walk(path)

    def _find_like(self, pattern: str) -> Iterator[Source]:
        top, parts = split_pattern(pattern)
        depth = -1 if _ANY_DEPTH in parts else len(parts)
        is_any = False
        for source in self.walk(top, depth=depth) if top.is_dir() else ():
            if source.error or matches(source.path.relative_to(top).parts, parts):
                is_any = True
                yield source
        if not is_any:
            error = OSError(errno.ENOENT, "matches no file")
            yield Source(Path(pattern), is_named=True, error=error)


def is_pattern(argument: str) -> bool:
    """Return whether an argument is a pattern: a file whose name looks like one is that file."""
    return not _MAGIC.isdisjoint(argument) and not os.path.lexists(argument)


def split_pattern(pattern: str) -> tuple[Path, tuple[str, ...]]:
    """Return the folder that a pattern begins in, and the rest by levels."""
    parts = PurePath(pattern).parts
    at = next(at for at, part in enumerate(parts) if not _MAGIC.isdisjoint(part))
    return Path(*parts[:at]), parts[at:]


def matches(names: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    """Return whether a path fits, level by level; `**` stands for any number, none included."""
    if not pattern:
        return not names
    if pattern[0] == _ANY_DEPTH:
        if len(pattern) == 1:
            return True
        return any(matches(names[at:], pattern[1:]) for at in range(len(names)))
    return bool(names) and fnmatchcase(names[0], pattern[0]) and matches(names[1:], pattern[1:])


def read_names(fd: int, separator: bytes, is_over: threading.Event) -> Iterator[str]:
    """Read names as they come, until the end of the file or of the batch, and skip empty ones.

    Raises:
        PictureOnInput: its first bytes are a picture's.
    """
    rest = b""
    is_first = True
    while not is_over.is_set():
        if not select.select([fd], [], [], _LOOK_EVERY_S)[0]:
            continue
        data = os.read(fd, _READ_BYTES)
        if is_first and (format_name := _sniff_picture(data)):
            raise PictureOnInput(
                f"standard input is a {format_name} picture, and - reads names: give the file's "
                "own name instead"
            )
        is_first = False
        *names, rest = (rest + data).split(separator)
        yield from (os.fsdecode(name) for name in names if name)
        if not data:
            yield from [os.fsdecode(rest)] if rest else []
            return


def _sniff_picture(data: bytes) -> str | None:
    """Return the format of a picture, None for a list of names.

    Names may begin like a picture ("BMW.png", "P5 final.jpg"), but do not hold control characters.
    """
    format_name = sniff(data)
    is_text = data.translate(None, _NOT_IN_NAMES) == data
    return None if is_text and format_name not in _TEXT_FORMATS else format_name


def _list_folder(folder: Path) -> tuple[list[str], list[str]]:
    """Return the names of the files and of the folders in a folder."""
    files: list[str] = []
    folders: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.name)
            elif _is_file(entry):
                files.append(entry.name)
    return sorted(files), sorted(folders)


def _is_file(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link in a circle, or no permission
        return False
