"""Find the input files of a batch: files, folders, patterns, and lists of names."""

import errno
import os
import select
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePath
from typing import Final

from upscaled.batch.outcome import BatchAborted
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

IsOver = Callable[[], bool]


class PictureOnInput(BatchAborted):
    """Standard input holds a picture where a list of names belongs."""

    exit_status = 2


TOP: Final = PurePath()
"""The output folder itself, relative to itself."""


@dataclass(frozen=True, slots=True)
class Source:
    """One file to upscale.

    place: the folder of its result, below the output folder. is_named: it was asked for by its own
    name, so that it is a failure if it is no image. trouble: why it, or a folder, cannot be read.
    """

    path: Path
    place: PurePath = TOP
    is_named: bool = False
    trouble: OSError | None = None


@dataclass(frozen=True, slots=True)
class Finder:
    """Finds the sources that arguments name, lazily: it holds the names of one folder at most.

    In folders, hidden names are passed over, links to folders are not followed (so no loop is ever
    walked), and links to files are. A file keeps its place below the folder, or below the fixed
    part of the pattern, by which it was found.

    output_dir: never looked into; None: results lie beside their sources, and folders are trouble.
    names: gives the names that `-` stands for.
    """

    output_dir: Path | None
    names: Callable[[], Iterable[str]] = tuple

    def find(self, arguments: Iterable[str]) -> Iterator[Source]:
        for argument in arguments:
            if argument == LIST:
                for name in self.names():
                    yield from self._find_named(name)
            elif is_pattern(argument):
                yield from self._find_like(argument)
            else:
                yield from self._find_named(argument)

    def walk(self, top: Path, depth: int = -1) -> Iterator[Source]:
        """Every file in a folder, in alphabetical order, a folder's own files first.

        depth: how many levels of folders; -1: all.
        """
        left_out = Path(os.path.realpath(self.output_dir)) if self.output_dir else None
        real_top = os.path.realpath(top)
        folders = [TOP]
        while folders:
            place = folders.pop()
            try:
                files, inside = _list_folder(top / place)
            except OSError as trouble:
                yield Source(top / place, place, trouble=trouble)
                continue
            for name in files:
                yield Source(top / place / name, place)
            if len(place.parts) + 1 != depth:
                folders += [
                    place / name
                    for name in reversed(inside)
                    if Path(real_top, place, name) != left_out
                ]

    def _find_named(self, name: str) -> Iterator[Source]:
        path = Path(name)
        if "\0" in name:
            yield Source(path, is_named=True, trouble=OSError(errno.EINVAL, "is no file name"))
        elif not os.path.isdir(path):  # False for a name that is too long, where Path raises
            yield Source(path, is_named=True)
        elif self.output_dir is None:
            text = "is a folder; -o says where its results go"
            yield Source(path, is_named=True, trouble=OSError(errno.EISDIR, text))
        else:
            yield from self.walk(path)

    def _find_like(self, pattern: str) -> Iterator[Source]:
        top, parts = split_pattern(pattern)
        depth = -1 if _ANY_DEPTH in parts else len(parts)
        is_any = False
        for source in self.walk(top, depth=depth) if top.is_dir() else ():
            if source.trouble or matches(source.path.relative_to(top).parts, parts):
                is_any = True
                yield source
        if not is_any:
            trouble = OSError(errno.ENOENT, "matches no file")
            yield Source(Path(pattern), is_named=True, trouble=trouble)


def is_pattern(argument: str) -> bool:
    """Whether it is a pattern: a file whose name looks like one is that file."""
    return not _MAGIC.isdisjoint(argument) and not os.path.lexists(argument)


def split_pattern(pattern: str) -> tuple[Path, tuple[str, ...]]:
    """The folder that a pattern begins in, and the rest by levels."""
    parts = PurePath(pattern).parts
    at = next(at for at, part in enumerate(parts) if not _MAGIC.isdisjoint(part))
    return Path(*parts[:at]), parts[at:]


def matches(names: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    """Whether a path fits, level by level; `**` stands for any number of them, none included."""
    if not pattern:
        return not names
    if pattern[0] == _ANY_DEPTH:
        if len(pattern) == 1:
            return True
        return any(matches(names[at:], pattern[1:]) for at in range(len(names)))
    return bool(names) and fnmatchcase(names[0], pattern[0]) and matches(names[1:], pattern[1:])


def read_names(fd: int, separator: bytes, is_over: IsOver) -> Iterator[str]:
    """Read names as they come, until the end of the file or of the batch, and skip empty ones.

    Raises:
        PictureOnInput: its first bytes are a picture's.
    """
    rest = b""
    is_first = True
    while not is_over():
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
    """The format of a picture, None for a list of names.

    Names may begin like a picture ("BMW.png", "P5 final.jpg"), but do not hold control characters.
    """
    format_name = sniff(data)
    is_text = data.translate(None, _NOT_IN_NAMES) == data
    return None if is_text and format_name not in _TEXT_FORMATS else format_name


def _list_folder(folder: Path) -> tuple[list[str], list[str]]:
    """The names of files and of folders in it."""
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
