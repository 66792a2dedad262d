"""Turns a row's request into bytes: names of pictures into files, placeholders into values."""

from dataclasses import dataclass

from tests.conformance.pictures import PICTURES, Picture
from tests.conformance.raw_http import Reply, Target, chunked
from tests.conformance.table import BOUNDARY, KEY, SOURCE, Part, Request


@dataclass(frozen=True)
class Source:
    """A URL that the server can reach, and the picture that it answers."""

    url: str
    picture: Picture


def perform(request: Request, target: Target, source: Source | None = None) -> Reply:
    """Send one row's request, with the target's key and the source's URL filled in."""
    headers = [(name, value.replace(KEY, target.api_key)) for name, value in request.headers]
    if request.content_type is not None:
        headers.append(("Content-Type", request.content_type))
    body = body_of(request, source)
    if request.is_chunked and body is not None:
        headers.append(("Transfer-Encoding", "chunked"))
        body = chunked(body)
    return target.send(request.method, request.path, headers, body)


def needs_source(request: Request) -> bool:
    texts = [(request.body or b"").decode("latin-1"), *(part.text for part in request.parts)]
    return any(SOURCE in text for text in texts)


def body_of(request: Request, source: Source | None) -> bytes | None:
    url = source.url if source else SOURCE
    if request.parts:
        lines = [_part_bytes(part, url) for part in request.parts]
        body = b"".join(lines) + f"--{BOUNDARY}--\r\n".encode()
    elif request.body is None:
        return None
    else:
        body = request.body.replace(SOURCE.encode(), url.encode())
    return request.rewrite(body) if request.rewrite else body


def _part_bytes(part: Part, source_url: str) -> bytes:
    disposition = f'form-data; name="{part.name}"'
    media_type, content = part.media_type, part.text.replace(SOURCE, source_url).encode()
    file_name = part.file_name
    if part.picture:
        picture = PICTURES[part.picture]
        file_name = picture.file_name if file_name is None else file_name
        media_type = media_type or picture.media_type
        content = picture.data
    if file_name is not None:
        disposition += f'; filename="{file_name}"'
    head = f"--{BOUNDARY}\r\nContent-Disposition: {disposition}\r\n"
    if media_type:
        head += f"Content-Type: {media_type}\r\n"
    return head.encode() + b"\r\n" + content + b"\r\n"
