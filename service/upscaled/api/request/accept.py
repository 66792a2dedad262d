"""Negotiate whether an upscale answers with the image itself or with JSON (RFC 9110, 12.5.1).

A client may send tens of thousands of bytes here, and they are parsed in the event loop. So the
header is scanned token by token, each byte once: a pattern is a sequence of runs of characters,
each ended by a character that the run cannot hold, and what is quoted is matched possessively.
Nothing behind a pattern can make it go back.
"""

import re
from typing import Final, NamedTuple

# A media type's name as registered (RFC 6838, 4.2). RFC 9110 alone would allow `'image/*'`, quotes
# included, as a type that does not exist: a real client sends that and means nothing by it.
_TYPE: Final = r"\*|[0-9A-Za-z][0-9A-Za-z!#$&^_.+-]*"
_NAME: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # RFC 9110, 5.6.2
_QUOTED: Final = r'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*+"'  # RFC 9110, 5.6.4
_RANGE: Final = re.compile(rf"({_TYPE})/({_TYPE})")
_PARAMETER: Final = re.compile(rf"({_NAME})=({_NAME}|{_QUOTED})")
# Empty members are passed over (RFC 9110, 5.6.1.2), and so are empty parameters (5.6.6).
_BETWEEN_MEMBERS: Final = re.compile(r"[ \t,]*")
_BETWEEN_PARAMETERS: Final = re.compile(r"[ \t;]*")
_WEIGHT: Final = re.compile(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?")

# What we can send. The image's own format is decided by its alpha, never by this header.
_JSON: Final = ("application", "json")
_IMAGES: Final = frozenset({("image", "jpeg"), ("image", "png")})


class MediaRange(NamedTuple):
    """One member of the header. `weight` is its `q`, from 0 to 1."""

    type: str
    subtype: str
    weight: float


def wants_image(accept: str | None) -> bool:
    """Return whether the client wants the image itself rather than JSON with its URL.

    Only when the best image type weighs more than JSON. A tie is JSON, so are an absent header
    and one with an illegal member, which is ignored whole.
    """
    heaviest: dict[tuple[str, str], float] = {}
    for main, subtype, weight in parse_accept(accept or ""):
        heaviest[main, subtype] = max(weight, heaviest.get((main, subtype), 0.0))
    images = _IMAGES | {each for each in heaviest if each[0] == "image" and each[1] != "*"}
    best_image = max(_weigh(media_type, heaviest) for media_type in images)
    return best_image > _weigh(_JSON, heaviest)


def parse_accept(accept: str) -> list[MediaRange]:
    """Return the header's media ranges in lower case; none if any member breaks the grammar."""
    ranges: list[MediaRange] = []
    position = _skip(_BETWEEN_MEMBERS, accept, 0)
    while position < len(accept):
        member = _RANGE.match(accept, position)
        if member is None or (member[1] == "*" and member[2] != "*"):
            return []
        weight, position = _scan_parameters(accept, member.end())
        if weight is None:
            return []
        ranges.append(MediaRange(member[1].lower(), member[2].lower(), weight))
        position = _skip(_BETWEEN_MEMBERS, accept, position)
    return ranges


def _scan_parameters(accept: str, position: int) -> tuple[float | None, int]:
    """Return the weight of the member whose parameters begin at `position`, and where it ends.

    The first parameter named `q` is the weight; without one it is 1, and None if the parameters
    break the grammar.
    """
    weight: float | None = None
    begin, position = position, _skip(_BETWEEN_PARAMETERS, accept, position)
    while position < len(accept) and accept[position] != ",":
        parameter = _PARAMETER.match(accept, position)
        if parameter is None or accept.find(";", begin, position) == -1:
            return None, position
        if weight is None and parameter[1] in ("q", "Q"):
            if not _WEIGHT.fullmatch(parameter[2]):
                return None, position
            weight = float(parameter[2])
        begin, position = parameter.end(), _skip(_BETWEEN_PARAMETERS, accept, parameter.end())
    return 1.0 if weight is None else weight, position


def _skip(pattern: re.Pattern[str], text: str, position: int) -> int:
    """Return the position behind what `pattern` matches at `position`."""
    match = pattern.match(text, position)
    return position if match is None else match.end()


def _weigh(media_type: tuple[str, str], heaviest: dict[tuple[str, str], float]) -> float:
    """Return the weight of the most specific range that matches; 0 where none does."""
    for wanted in (media_type, (media_type[0], "*"), ("*", "*")):
        if wanted in heaviest:
            return heaviest[wanted]
    return 0.0
