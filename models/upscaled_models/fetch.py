"""Download an official model's file: resumed where it broke off, checked, then moved into place.

The incomplete file is `FILE.part` beside the final one, for the next call to resume. It is removed
where its contents turn out wrong.
"""

import fcntl
import http
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPResponse
from pathlib import Path
from typing import IO, BinaryIO, Final, cast
from urllib.parse import urlsplit

from upscaled_models.errors import FetchError
from upscaled_models.files import FileState, check_file
from upscaled_models.registry import ModelSpec
from upscaled_models.store import ModelStore

ReportProgress = Callable[[int, int], None]

CHUNK_BYTES: Final = 256 * 1024
MAX_CONNECTIONS: Final = 20
TIMEOUT_S: Final = 30.0
_LOOPBACK_HOSTS: Final = frozenset({"127.0.0.1", "::1", "localhost"})


def fetch(
    spec: ModelSpec, store: ModelStore, progress: ReportProgress, *, timeout_s: float = TIMEOUT_S
) -> Path:
    """Return the file of `spec`; download it unless it is installed with the right hash.

    A broken connection is resumed as long as each attempt brings more bytes.

    Args:
        progress: called with (bytes so far, bytes in all), resumed bytes included.
        timeout_s: longest silence of the server.

    Raises:
        FetchError: no address to fetch from, no connection, or wrong contents; the text names URL,
            hash and the path to copy the file to by hand.
    """
    target = store.target(spec)
    try:
        if target.is_file() and check_file(target, spec) is FileState.OK:
            return target
        if not spec.url:
            raise _Unusable("it has no address to fetch from")
        target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        with _open_part(target.with_name(target.name + ".part"), spec) as part:
            _complete(part, spec, progress, timeout_s)
            _check(part, spec)
            os.fchmod(part.fileno(), 0o644)  # whatever the umask: read by others, written by none
            os.replace(part.name, target)
    except (OSError, http.client.HTTPException, _Unusable) as error:
        raise FetchError(_explain(spec, target, error)) from error
    return target


class _Unusable(Exception):
    """The download failed for a reason that no further attempt would change."""


@contextmanager
def _open_part(path: Path, spec: ModelSpec) -> Iterator[BinaryIO]:
    """Open the part file at its end, locked against a second fetch, never longer than the whole."""
    with path.open("ab") as part:
        try:
            fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _Unusable("another fetch of it is under way") from None
        if not path.exists() or not os.path.samestat(path.stat(), os.fstat(part.fileno())):
            raise _Unusable("another fetch of it has just ended: look again")
        if part.tell() > spec.size_bytes:
            _empty(part)
        yield part


def _complete(part: BinaryIO, spec: ModelSpec, progress: ReportProgress, timeout_s: float) -> None:
    """Complete the part file, over at most `MAX_CONNECTIONS` connections that each bring bytes."""
    for _ in range(MAX_CONNECTIONS):
        start = part.tell()
        if start == spec.size_bytes:
            return
        try:
            _read_response(part, spec, progress, timeout_s)
        except (OSError, http.client.HTTPException):
            if part.tell() <= start:
                raise
        if part.tell() <= start:
            raise _Unusable(f"the server stopped after {start} of {spec.size_bytes} bytes")
    if part.tell() < spec.size_bytes:
        raise _Unusable(f"the connection broke {MAX_CONNECTIONS} times; run it again to go on")


def _read_response(
    part: BinaryIO, spec: ModelSpec, progress: ReportProgress, timeout_s: float
) -> None:
    with _request(spec.url, part, timeout_s) as response:
        _check_length(response, part.tell(), spec)
        if response.status != 206:
            _empty(part)
        progress(part.tell(), spec.size_bytes)
        while chunk := response.read1(CHUNK_BYTES):
            if part.tell() + len(chunk) > spec.size_bytes:
                _empty(part)
                raise _Unusable(f"the server sends more than {spec.size_bytes} bytes")
            _append(part, chunk)
            progress(part.tell(), spec.size_bytes)


def _append(part: BinaryIO, chunk: bytes) -> None:
    """Append a chunk; a full disk ends the download, since another attempt would not help."""
    try:
        part.write(chunk)
        part.flush()
    except OSError as error:
        raise _Unusable(f"{part.name} cannot be written: {error}") from error


def _request(url: str, part: BinaryIO, timeout_s: float) -> HTTPResponse:
    """Request the bytes that the part file lacks; the response may be the whole file instead."""
    _refuse_plain_http(url, may_be_loopback=True)
    request = urllib.request.Request(url, headers={"Accept-Encoding": "identity"})  # noqa: S310
    if part.tell():
        request.add_header("Range", f"bytes={part.tell()}-")
    try:
        opener = urllib.request.build_opener(_HttpsOnly())
        return cast(HTTPResponse, opener.open(request, timeout=timeout_s))
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            _empty(part)
        raise


def _check_length(response: HTTPResponse, start: int, spec: ModelSpec) -> None:
    """Refuse a response of another length, such as a log-in page, before a byte of it is kept."""
    if response.status == 206:
        expected = f"bytes {start}-{spec.size_bytes - 1}/{spec.size_bytes}"
        received = response.headers.get("Content-Range", "")
    else:
        expected = str(spec.size_bytes)
        received = response.headers.get("Content-Length", expected)
    if received != expected:
        raise _Unusable(f"the server offers {received!r} where {expected!r} is due")


def _empty(part: BinaryIO) -> None:
    part.seek(0)
    part.truncate()


def _check(part: BinaryIO, spec: ModelSpec) -> None:
    """Check the complete file, and remove it if it is wrong, since it cannot be resumed."""
    part.flush()
    os.fsync(part.fileno())
    path = Path(part.name)
    if check_file(path, spec) is not FileState.OK:
        path.unlink()
        raise _Unusable("what came has another SHA-256, and was removed")


class _HttpsOnly(urllib.request.HTTPRedirectHandler):
    """Follow no redirect that leaves https, except from loopback to loopback, for tests."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        try:
            _refuse_plain_http(newurl, may_be_loopback=req.type == "http")
        except _Unusable:
            fp.close()
            raise
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _refuse_plain_http(url: str, *, may_be_loopback: bool) -> None:
    parts = urlsplit(url)
    is_loopback = parts.scheme == "http" and parts.hostname in _LOOPBACK_HOSTS
    if parts.scheme != "https" and not (may_be_loopback and is_loopback):
        raise _Unusable(f"{url} is not https")


def _explain(spec: ModelSpec, target: Path, error: Exception) -> str:
    lines = [f"{spec.name} could not be fetched: {_reason(error)}"]
    if spec.url:
        lines += ["To carry it in by hand, download", f"  {spec.url}"]
    lines += [
        "Its file belongs at",
        f"  {target}",
        f"with SHA-256 {spec.sha256} and {spec.size_bytes} bytes; "
        f"`upscaled models add {spec.name} FILE` checks it and puts it there.",
    ]
    return "\n".join(lines)


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.URLError) and not isinstance(error, urllib.error.HTTPError):
        return str(error.reason)
    return str(error) or type(error).__name__
