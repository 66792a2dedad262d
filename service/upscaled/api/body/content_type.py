"""Which of the two body kinds a Content-Type names."""

from enum import Enum

from upscaled.errors import UnsupportedContentType


class BodyKind(Enum):
    JSON = "application/json"
    MULTIPART = "multipart/form-data"


def choose_body_kind(content_type: str | None) -> BodyKind:
    """The kind by the media type alone: any letter case, parameters ignored.

    Raises:
        UnsupportedContentType: no Content-Type, or any other.
    """
    media_type = (content_type or "").partition(";")[0].strip(" \t").lower()
    try:
        return BodyKind(media_type)
    except ValueError:
        raise UnsupportedContentType(detail=repr(media_type[:100])) from None
