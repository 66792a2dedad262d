"""Compares a reply with what a row of the table says. Every failure shows the whole reply."""

import io
import json
import re
import uuid
from urllib.parse import urlsplit

from PIL import Image, ImageChops, ImageStat

from tests.conformance.pictures import PICTURES, Picture
from tests.conformance.raw_http import Reply, Target
from tests.conformance.requesting import Source
from tests.conformance.table import FIXED_TEXTS, STATUSES, Plain, Refused, Row, Upscaled

MAX_TEXT_LENGTH = 200
RESULT_PATH = re.compile(r"/public/result/([0-9a-f-]{36})\.(jpg|png)")
MEDIA_TYPES = {"JPEG": "image/jpeg", "PNG": "image/png"}
# What a trace, a path or an exception of the service would look like in a text for clients.
LEAKS = re.compile(
    r"Traceback|File \"|/home/|/usr/|/tmp/|Errno|Error\(|Exception|<html|0x[0-9a-f]{6}"
)


def check_answer(reply: Reply, row: Row, target: Target, source: Source | None = None) -> None:
    answer = row.answer
    if isinstance(answer, Refused):
        check_refused(reply, answer)
    elif isinstance(answer, Plain):
        check_plain(reply, answer)
    else:
        sent = source.picture if source else PICTURES[row.request.picture]
        check_upscaled(reply, answer, sent, target)


def check_refused(reply: Reply, wanted: Refused) -> None:
    """Status, content type, the two keys and nothing else, and a short text that leaks nothing."""
    assert reply.status == STATUSES[wanted.code], f"expected {wanted.code}:\n{reply}"
    assert reply.header("content-type") == "application/json", reply
    body = reply.json()
    assert isinstance(body, dict), reply
    assert set(body) == {"error", "error_code"}, reply
    assert body["error_code"] == wanted.code, f"expected {wanted.code}:\n{reply}"
    text = body["error"]
    assert isinstance(text, str), reply
    assert 0 < len(text) <= MAX_TEXT_LENGTH, reply
    assert not LEAKS.search(text), reply
    assert text == FIXED_TEXTS.get(wanted.code, text), reply
    for word in wanted.naming:
        assert word.lower() in text.lower(), f"the text does not name {word!r}:\n{reply}"
    if wanted.allows:
        allowed = [method.strip() for method in (reply.header("allow") or "").split(",")]
        assert wanted.allows in allowed, reply
    if wanted.within_s is not None:
        assert reply.elapsed_s < wanted.within_s, reply


def check_plain(reply: Reply, wanted: Plain) -> None:
    assert reply.status == wanted.status, reply
    content_type = (reply.header("content-type") or "").split(";")[0].strip()
    assert content_type == (wanted.content_type or content_type), reply
    for words in wanted.holds:
        assert words in reply.body.decode("utf-8", "replace"), reply


def check_upscaled(reply: Reply, wanted: Upscaled, sent: Picture, target: Target) -> None:
    """The image itself, or one key with a URL that gives the image."""
    assert reply.status == 200, reply
    if wanted.is_binary:
        check_image_reply(reply, sent, wanted.scale)
        return
    result_url = check_result_json(reply)
    check_image_reply(fetch_result(result_url, target), sent, wanted.scale)
    expected_end = ".png" if sent.has_alpha else ".jpg"
    assert result_url.endswith(expected_end), reply


def check_result_json(reply: Reply) -> str:
    """Check that the body has one key, and return its URL."""
    assert reply.header("content-type") == "application/json", reply
    body = reply.json()
    assert isinstance(body, dict), reply
    assert list(body) == ["result_url"], reply
    parts = urlsplit(body["result_url"])
    assert parts.scheme in ("http", "https"), reply
    assert not parts.query, reply
    assert not parts.fragment, reply
    return str(body["result_url"])


def check_result_path(result_url: str) -> None:
    """`/public/result/{uuid4}.jpg` or `.png`: the form that this service gives them."""
    match = RESULT_PATH.fullmatch(urlsplit(result_url).path)
    assert match is not None, result_url
    assert uuid.UUID(match[1]).version == 4, result_url


def fetch_result(result_url: str, target: Target, method: str = "GET") -> Reply:
    """Get a result without a key, and a redirect counts as a failure."""
    parts = urlsplit(result_url)
    holder = Target(f"{parts.scheme}://{parts.netloc}", "", target.wait_for_rate)
    reply = holder.send(method, parts.path)
    assert reply.status == 200, reply
    return reply


def check_image_reply(reply: Reply, sent: Picture, scale: int) -> None:
    kind = "PNG" if sent.has_alpha else "JPEG"
    assert reply.header("content-type") == MEDIA_TYPES[kind], reply
    assert reply.header("content-length") == str(len(reply.body)), reply
    with Image.open(io.BytesIO(reply.body)) as image:
        assert image.format == kind, reply
        assert image.size == (sent.width_px * scale, sent.height_px * scale), (image.size, reply)
        assert ("A" in image.getbands()) == sent.has_alpha, (image.mode, reply)
        assert image.getexif().get(0x0112, 1) == 1, "the orientation tag was not dropped"
        image.load()
        if sent.tolerance is not None:
            distance = distance_from(sent, image)
            assert distance <= sent.tolerance, f"{sent.name} is {distance:.1f} levels off\n{reply}"


def distance_from(sent: Picture, answer: Image.Image) -> float:
    """Mean distance in levels between what was sent and the answer shrunk back to its size.

    Only pixels that were opaque count for colour; the alpha plane counts by itself.
    """
    mode = "RGBA" if sent.has_alpha else "RGB"
    wanted = sent.looks_like().convert(mode)
    shrunk = answer.convert(mode).resize(wanted.size, Image.Resampling.BOX)
    mask = (
        wanted.getchannel("A").point(lambda level: 255 * (level == 255)) if sent.has_alpha else None
    )
    difference = ImageChops.difference(wanted.convert("RGB"), shrunk.convert("RGB"))
    colour = max(ImageStat.Stat(difference, mask).mean)
    if mask is None:
        return float(colour)
    alpha = ImageChops.difference(wanted.getchannel("A"), shrunk.getchannel("A"))
    return float(max(colour, *ImageStat.Stat(alpha).mean))


def error_text(reply: Reply) -> str:
    return str(json.loads(reply.body)["error"])
