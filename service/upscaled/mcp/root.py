"""Confine the files of tools to one folder: read pictures below it, and write results below it.

A language model names the paths, perhaps for a hostile document. So a path is resolved, must lie
below the root, and is opened component by component without following symbolic links.
"""

import os
import stat
import uuid
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final

from mcp.server.mcpserver.exceptions import ToolError

_OPEN_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Without waiting for a writer, where it is a pipe.
_OPEN_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Picture:
    """A file to upscale: where it is, without symbolic links, and its bytes."""

    path: Path
    data: bytes


class RootFolder:
    def __init__(self, folder: Path, max_file_bytes: int) -> None:
        """Open a folder as it is now, or raise OSError; files up to `max_file_bytes` are read."""
        self.path: Final = folder.resolve(strict=True)
        self._max_file_bytes = max_file_bytes
        os.close(os.open(self.path, _OPEN_FOLDER))

    def read(self, path: str) -> Picture:
        """Read a regular file by its path from the root or absolute, or raise `ToolError`."""
        resolved = self._resolve(path)
        if resolved == self.path:  # its own parent is outside
            raise ToolError(f"{path} is no regular file")
        try:
            with ExitStack() as stack:
                folder = self._open_folder(resolved.parent, stack)
                descriptor = os.open(resolved.name, _OPEN_FILE, dir_fd=folder)
                stack.callback(os.close, descriptor)
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode):
                    raise ToolError(f"{path} is no regular file")
                if status.st_size > self._max_file_bytes:
                    raise ToolError(f"{path} is larger than {self._max_file_bytes} bytes")
                with open(descriptor, "rb", closefd=False) as file:
                    return Picture(resolved, file.read(self._max_file_bytes))
        except OSError as error:
            raise _refuse(path, error) from None

    def find_folder(self, path: str) -> Path:
        """Return an existing folder below the root for results, without symbolic links."""
        resolved = self._resolve(path)
        if not resolved.is_dir():
            raise ToolError(f"{path} is no folder")
        return resolved

    def write(self, folder: Path, stem: str, ending: str, data: bytes) -> Path:
        """Write a new file whole or not at all, and return its path, or raise `ToolError`.

        A file that is there stays: the name then gets a number, as in `photo-x4-2.jpg`.

        Args:
            folder: as `find_folder` or `read` has given it.
            stem: name of the file without its ending, such as `.jpg`.
        """
        part = f".{uuid.uuid4().hex}.part"
        try:
            with ExitStack() as stack:
                descriptor = self._open_folder(folder, stack)
                stack.callback(_remove, part, descriptor)
                with open(os.open(part, _CREATE_FILE, 0o666, dir_fd=descriptor), "wb") as file:
                    file.write(data)
                name = _reserve_name(stem, ending, descriptor)
                try:
                    os.replace(part, name, src_dir_fd=descriptor, dst_dir_fd=descriptor)
                except OSError:
                    _remove(name, descriptor)
                    raise
        except OSError as error:
            raise _refuse(str(folder), error) from None
        return folder / name

    def _resolve(self, path: str) -> Path:
        try:
            resolved = Path(self.path, path).resolve(strict=True)
        except (OSError, RuntimeError, ValueError):  # it is not there, a loop of links, a NUL
            resolved = None
        # One answer for both, so that it does not show whether a file outside the root exists.
        if resolved is None or not resolved.is_relative_to(self.path):
            raise ToolError(f"{path} is not there, or not below {self.path}")
        return resolved

    def _open_folder(self, folder: Path, stack: ExitStack) -> int:
        """Open a resolved folder below the root until the stack ends, following no link."""
        descriptor = os.open(self.path, _OPEN_FOLDER)
        stack.callback(os.close, descriptor)
        for part in folder.relative_to(self.path).parts:
            descriptor = os.open(part, _OPEN_FOLDER, dir_fd=descriptor)
            stack.callback(os.close, descriptor)
        return descriptor


def _reserve_name(stem: str, ending: str, folder: int) -> str:
    """Create an empty file under the first name that is free, and return the name."""
    for number in count(1):
        name = f"{stem}{ending}" if number == 1 else f"{stem}-{number}{ending}"
        with suppress(FileExistsError):
            os.close(os.open(name, _CREATE_FILE, 0o666, dir_fd=folder))
            return name
    raise AssertionError("unreachable: names have no end")


def _remove(name: str, folder: int) -> None:
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)


def _refuse(path: str, error: OSError) -> ToolError:
    return ToolError(f"{path}: {error.strerror or type(error).__name__}")
