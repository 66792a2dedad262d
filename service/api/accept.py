"""Content negotiation for the one endpoint that has two kinds of answer (RFC 9110, 12.5.1)."""

import re
from typing import Final, NamedTuple

# A media type's name as registered (RFC 6838, 4.2). RFC 9110 alone would allow `'image/*'`, quotes
# included, as a type that nobody has: a real client sends that and means nothing by it.
_TYPE: Final = r"(?:\*|[0-9A-Za-z][0-9A-Za-z!#$&^_.+-]*)"
_NAME: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED: Final = r'"(?:[^"\\]|\\.)*"'
_PARAMETER: Final = rf"[ \t]*;[ \t]*(?:({_NAME})=({_NAME}|{_QUOTED}))?"
_MEMBER: Final = re.compile(rf"[ \t]*({_TYPE})/({_TYPE})((?:{_PARAMETER})*)[ \t]*(?:,|$)")
_EMPTY_MEMBER: Final = re.compile(r"[ \t]*(?:,|$)")
_EACH_PARAMETER: Final = re.compile(_PARAMETER)
_WEIGHT: Final = re.compile(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?")

# What we can send. The image's own format is decided by its alpha, never by this header.
_JSON: Final = ("application", "json")
_IMAGES: Final = {("image", "jpeg"), ("image", "png")}


class MediaRange(NamedTuple):
    type: str
    subtype: str
    weight: float


def wants_image(accept: str | None) -> bool:
    """Whether the bytes of the image are wanted rather than JSON with a URL.

    Only when the best image type weighs more than JSON. A tie is JSON, so are an absent header
    and one with an illegal member, which is ignored whole.
    """
    ranges = parse_accept(accept or "")
    named = {(each.type, each.subtype) for each in ranges}
    images = _IMAGES | {each for each in named if each[0] == "image" and each[1] != "*"}
    best_image = max(_weigh(media_type, ranges) for media_type in images)
    return best_image > _weigh(_JSON, ranges)


def parse_accept(accept: str) -> list[MediaRange]:
    """The header's media ranges, types in lower case; empty if any member breaks the grammar."""
    ranges: list[MediaRange] = []
    position = 0
    while position < len(accept):
        if empty := _EMPTY_MEMBER.match(accept, position):
            position = empty.end()
            continue
        member = _MEMBER.match(accept, position)
        media_range = member and _read_member(member)
        if not member or not media_range:
            return []
        ranges.append(media_range)
        position = member.end()
    return ranges


def _read_member(member: re.Match[str]) -> MediaRange | None:
    main, subtype = member[1].lower(), member[2].lower()
    if main == "*" and subtype != "*":
        return None
    for name, value in _EACH_PARAMETER.findall(member[3]):
        if name.lower() == "q":
            return MediaRange(main, subtype, float(value)) if _WEIGHT.fullmatch(value) else None
    return MediaRange(main, subtype, 1.0)


def _weigh(media_type: tuple[str, str], ranges: list[MediaRange]) -> float:
    """The weight of the most specific range that matches; 0 where none does."""
    main, subtype = media_type
    for wanted in ((main, subtype), (main, "*"), ("*", "*")):
        weights = [each.weight for each in ranges if (each.type, each.subtype) == wanted]
        if weights:
            return max(weights)
    return 0.0
