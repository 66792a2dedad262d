"""Fetches an official model's file: resumed where it broke off, checked, then put in place at once.

The half-made file is `FILE.part` beside its final place. It is kept when the connection breaks, so
that the next call goes on from there, and removed when its contents turn out wrong.
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
from typing import IO, BinaryIO, cast
from urllib.parse import urlsplit

from upscaled_models.errors import FetchError
from upscaled_models.files import FileState, check_file
from upscaled_models.registry import ModelSpec
from upscaled_models.store import ModelStore

Progress = Callable[[int, int], None]

CHUNK_BYTES = 256 * 1024
MAX_CONNECTIONS = 20
TIMEOUT_S = 30.0
_LOOPBACK_HOSTS = frozenset({"127.0.0.1", "::1", "localhost"})


def fetch(
    spec: ModelSpec, store: ModelStore, progress: Progress, *, timeout_s: float = TIMEOUT_S
) -> Path:
    """The file of `spec`, downloaded unless it is here already and right.

    A connection that breaks is taken up again as long as each try brings more bytes.

    Args:
        progress: called with (bytes so far, bytes in all), both counting what was resumed.
        timeout_s: longest silence of the server.

    Raises:
        FetchError: no address to fetch from, no connection, or wrong contents; the text names URL,
            hash and the path to carry the file to by hand.
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
    """An answer that is not the file; no second try would change it."""


@contextmanager
def _open_part(path: Path, spec: ModelSpec) -> Iterator[BinaryIO]:
    """The part file, locked against a second fetch, at its end, never longer than the whole."""
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


def _complete(part: BinaryIO, spec: ModelSpec, progress: Progress, timeout_s: float) -> None:
    """Fill up the part file, over as many connections as bring something, within reason."""
    for _ in range(MAX_CONNECTIONS):
        start = part.tell()
        if start == spec.size_bytes:
            return
        try:
            _take_one_answer(part, spec, progress, timeout_s)
        except (OSError, http.client.HTTPException):
            if part.tell() <= start:
                raise
        if part.tell() <= start:
            raise _Unusable(f"the server stopped after {start} of {spec.size_bytes} bytes")
    if part.tell() < spec.size_bytes:
        raise _Unusable(f"the connection broke {MAX_CONNECTIONS} times; run it again to go on")


def _take_one_answer(part: BinaryIO, spec: ModelSpec, progress: Progress, timeout_s: float) -> None:
    with _ask(spec.url, part, timeout_s) as response:
        _check_length(response, part.tell(), spec)
        if response.status != 206:
            _empty(part)
        progress(part.tell(), spec.size_bytes)
        while chunk := response.read1(CHUNK_BYTES):
            if part.tell() + len(chunk) > spec.size_bytes:
                _empty(part)
                raise _Unusable(f"the server sends more than {spec.size_bytes} bytes")
            _keep(part, chunk)
            progress(part.tell(), spec.size_bytes)


def _keep(part: BinaryIO, chunk: bytes) -> None:
    """A full disk is no broken connection: it is not worth another try."""
    try:
        part.write(chunk)
        part.flush()
    except OSError as error:
        raise _Unusable(f"{part.name} cannot be written: {error}") from error


def _ask(url: str, part: BinaryIO, timeout_s: float) -> HTTPResponse:
    """Ask for what the part file lacks. The answer may be the whole file all the same."""
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
    """A log-in page or another file is told by its length, before a byte of it is kept."""
    if response.status == 206:
        expected = f"bytes {start}-{spec.size_bytes - 1}/{spec.size_bytes}"
        found = response.headers.get("Content-Range", "")
    else:
        expected = str(spec.size_bytes)
        found = response.headers.get("Content-Length", expected)
    if found != expected:
        raise _Unusable(f"the server offers {found!r} where {expected!r} is due")


def _empty(part: BinaryIO) -> None:
    part.seek(0)
    part.truncate()


def _check(part: BinaryIO, spec: ModelSpec) -> None:
    """Removes the file if it is wrong: going on from it would never lead anywhere."""
    part.flush()
    os.fsync(part.fileno())
    path = Path(part.name)
    if check_file(path, spec) is not FileState.OK:
        path.unlink()
        raise _Unusable("what came has another SHA-256, and was removed")


class _HttpsOnly(urllib.request.HTTPRedirectHandler):
    """Follows no redirect that leaves https, except from loopback to loopback, for tests."""

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
