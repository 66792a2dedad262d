"""Find the input files of a batch: files, folders, buckets, patterns, and lists of names."""

import errno
import os
import select
import threading
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePath
from typing import Final, Protocol

from upscaled.batch.bucket_source import BucketObject, S3Url, find_object, list_objects, open_bucket
from upscaled.batch.files import BatchAborted, LocalFile
from upscaled.image.formats.table import sniff

LIST: Final = "-"
"""The argument that stands for names on standard input."""
_ANY_DEPTH: Final = "**"
_MAGIC: Final = frozenset("*?[")
_LOOK_EVERY_S: Final = 0.25
_READ_BYTES: Final = 65_536
# Separators and tabs occur in lists of names.
_NOT_IN_NAMES: Final = bytes(set(range(1, 32)) - set(b"\t\n\r"))
# Recognised by more than their first bytes.
_TEXT_FORMATS: Final = frozenset({"SVG"})


class PictureOnInput(BatchAborted):
    """Standard input is a picture, and no output is given for its result."""

    exit_status = 2


TOP: Final = PurePath()
"""The output folder itself, relative to itself."""


class SourceFile(Protocol):
    """File of this machine or object of a bucket; `str` is its full name, alike in each run."""

    @property
    def name(self) -> str:
        """Return the last part of the whole name."""

    def read(self, formats: Collection[str], *, is_any: bool) -> bytes:
        """Read the whole file, or less of it where it is no image; see `files.read_source`."""

    def state(self) -> int | None:
        """Return a number that changes when the file does; None if the file no longer exists."""

    def is_whole(self, *, is_still: bool) -> bool:
        """Return whether the file is complete. is_still: it has not changed for a while."""


@dataclass(frozen=True, slots=True)
class Source:
    """File to upscale.

    folder: that of its result, below the output folder. is_named: it was given by its own name, so
    that it is a failure if it is no image. error: why it, or a folder, cannot be read.
    """

    file: SourceFile
    folder: PurePath = TOP
    is_named: bool = False
    error: OSError | None = None


@dataclass(frozen=True, slots=True)
class Finder:
    """Finder of the sources that arguments name, lazy: it holds the names of one folder at most.

    In folders, hidden names are passed over, and links are followed to files alone. A file has its
    path below the folder, or the fixed part of the pattern, by which it was found.

    output: never looked into; None: results lie beside their sources, and folders are errors.
    names: those that `-` stands for. s3_endpoint: of the buckets.
    """

    output: Path | S3Url | None
    names: Iterable[str] = ()
    s3_endpoint: str = ""

    def find(self, arguments: Iterable[str]) -> Iterator[Source]:
        for argument in arguments:
            if argument == LIST:
                for name in self.names:
                    yield from self._find_named(name)
            elif is_pattern(argument) and not self._is_object(argument):
                yield from self._find_like(argument)
            else:
                yield from self._find_named(argument)

    def walk(self, top: Path | S3Url, depth: int = -1) -> Iterator[Source]:
        """Find every file below a prefix, or in a folder `depth` levels deep (-1: all), by name."""
        return self._walk_bucket(top) if isinstance(top, S3Url) else self._walk_folder(top, depth)

    def _walk_bucket(self, top: S3Url) -> Iterator[Source]:
        bucket = open_bucket(top.bucket, self.s3_endpoint)
        is_inside = isinstance(self.output, S3Url) and top.holds(self.output)
        left_out = self.output if is_inside else None
        try:
            for found in list_objects(bucket, top):
                if not (isinstance(left_out, S3Url) and left_out.holds(found.url)):
                    *folders, _ = filter(None, found.url.key[len(top.key) :].split("/"))
                    yield Source(found, PurePath(*folders))
        except OSError as error:
            yield Source(BucketObject(bucket, top), error=error)

    def _walk_folder(self, top: Path, depth: int) -> Iterator[Source]:
        """Find every file in a folder, a folder's own files first."""
        left_out = Path(os.path.realpath(self.output)) if isinstance(self.output, Path) else None
        real_top = os.path.realpath(top)
        folders = [TOP]
        while folders:
            folder = folders.pop()
            try:
                files, inside = _list_folder(top / folder)
            except OSError as error:
                yield Source(LocalFile(top / folder), folder, error=error)
                continue
            for name in files:
                yield Source(LocalFile(top / folder / name), folder)
            if len(folder.parts) + 1 != depth:
                folders += [
                    folder / name
                    for name in reversed(inside)
                    if Path(real_top, folder, name) != left_out
                ]

    def _find_named(self, name: str) -> Iterator[Source]:
        if url := S3Url.parse(name):
            yield from self._find_in_bucket(url)
            return
        file = LocalFile(Path(name))
        if "\0" in name:
            yield Source(file, is_named=True, error=OSError(errno.EINVAL, "is no file name"))
        elif not os.path.isdir(name):  # False for a name that is too long, where Path raises
            yield Source(file, is_named=True)
        else:
            yield from self._find_below(file, file.path)

    def _find_in_bucket(self, url: S3Url) -> Iterator[Source]:
        bucket = open_bucket(url.bucket, self.s3_endpoint)
        try:
            found = find_object(bucket, url)
        except OSError as error:
            yield Source(BucketObject(bucket, url), is_named=True, error=error)
            return
        if found is not None and self.output is not None:
            yield Source(found, is_named=True)
        else:
            yield from self._find_below(BucketObject(bucket, url), url)

    def _is_object(self, argument: str) -> bool:
        """Return whether an object's name only looks like a pattern."""
        url = S3Url.parse(argument)
        with suppress(OSError):  # listing then says why
            return url is not None and bool(
                find_object(open_bucket(url.bucket, self.s3_endpoint), url)
            )
        return False

    def _find_below(self, file: SourceFile, top: Path | S3Url) -> Iterator[Source]:
        if self.output is None:
            text = "is a folder, or in a bucket; -o says where its results go"
            yield Source(file, is_named=True, error=OSError(errno.EISDIR, text))
            return
        is_any = isinstance(top, Path)
        for source in self.walk(top):
            is_any = True
            yield source
        if not is_any:
            error = FileNotFoundError(errno.ENOENT, "no such object, and none below it")
            yield Source(file, is_named=True, error=error)

    def _find_like(self, pattern: str) -> Iterator[Source]:
        top, parts = split_pattern(pattern)
        depth = -1 if _ANY_DEPTH in parts else len(parts)
        is_any = False
        can_be_walked = isinstance(top, S3Url) or os.path.isdir(top)
        for source in self.walk(top, depth=depth) if can_be_walked else ():
            if source.error or matches((*source.folder.parts, source.file.name), parts):
                is_any = True
                yield source
        if not is_any:
            error = OSError(errno.ENOENT, "matches no file")
            yield Source(LocalFile(Path(pattern)), is_named=True, error=error)


def is_pattern(argument: str) -> bool:
    """Return whether an argument is a pattern: a file whose name looks like one is that file."""
    return not _MAGIC.isdisjoint(argument) and not os.path.lexists(argument)


def split_pattern(pattern: str) -> tuple[Path | S3Url, tuple[str, ...]]:
    """Return the folder or prefix that a pattern begins in, and the rest by levels."""
    url = S3Url.parse(pattern)
    parts = PurePath(url.key if url else pattern).parts
    magic = (at for at, part in enumerate(parts) if not _MAGIC.isdisjoint(part))
    at = next(magic, len(parts))
    return S3Url(url.bucket, "/".join(parts[:at])) if url else Path(*parts[:at]), parts[at:]


def matches(names: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    """Return whether a path matches, level by level; `**` matches any number of levels, or none."""
    if not pattern:
        return not names
    if pattern[0] == _ANY_DEPTH:
        if len(pattern) == 1:
            return True
        return any(matches(names[at:], pattern[1:]) for at in range(len(names)))
    return bool(names) and fnmatchcase(names[0], pattern[0]) and matches(names[1:], pattern[1:])


def read_names(fd: int, separator: bytes, is_over: threading.Event) -> Iterator[str]:
    """Read names as they arrive, until the end of the file or of the batch; skip empty ones.

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
                f"standard input is a {format_name} picture: -o FILE says where its result goes, "
                "or -o - for standard output"
            )
        is_first = False
        *names, rest = (rest + data).split(separator)
        yield from (os.fsdecode(name) for name in names if name)
        if not data:
            yield from [os.fsdecode(rest)] if rest else []
            return


def _sniff_picture(data: bytes) -> str | None:
    """Return the format of a picture, None for a list of names.

    Names may begin like a picture ("BMW.png"), but do not hold control characters.
    """
    format_name = sniff(data)
    is_text = data.translate(None, _NOT_IN_NAMES) == data
    return None if is_text and format_name not in _TEXT_FORMATS else format_name


def _list_folder(folder: Path) -> tuple[list[str], list[str]]:
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
