"""Fields under names of other APIs: the names that this API expects instead."""

import re
from collections.abc import Iterable
from typing import Final

from upscaled.api.body.fields import UnknownField

# In lower case, without what is neither letter nor digit: `imageUrl`, `Image-URL`, `image[]`.
_PICTURES: Final = frozenset(
    """
    image images img imgs picture pictures pic photo photos file files upload uploads media blob
    data content body input inputs inputimage imageinput inputfile imagefile imgfile imagedata
    filedata uploadfile fileupload sourceimage imagesource imagebase64 base64 base64image
    imageurl imageurls imageuri imagelink imagesrc imagepath imgurl imgsrc pictureurl photourl
    fileurl mediaurl url urls uri src source sourceurl srcurl link href inputurl inputimageurl
    downloadurl remoteurl publicurl
    """.split()  # noqa: SIM905 - as a list these would be sixty lines
)
_SCALES: Final = frozenset(
    """
    scale scales scaling factor scalefactor scalingfactor scaleratio ratio zoom zoomfactor
    upscale upscaling upscalefactor upscaleratio upscalelevel outscale outputscale targetscale
    resolution size multiplier magnification enlarge enlargement level
    """.split()  # noqa: SIM905
)
_SHOWABLE: Final = re.compile(r"[A-Za-z0-9 ._\[\]-]{1,32}")
_NO_LETTER: Final = re.compile(r"[^a-z0-9]")


def name_expected(
    unknown: Iterable[UnknownField], *, is_image_missing: bool, is_scale_missing: bool
) -> str:
    """A clause for each missing field that is there under another name, or nothing.

    A name is repeated only where it is short and plain, so no text of a client's making gets into
    an answer.
    """
    clauses: dict[str, str] = {}
    for field in unknown:
        if not _SHOWABLE.fullmatch(field.name):
            continue
        plain = _NO_LETTER.sub("", field.name.lower())
        if is_image_missing and plain in _PICTURES:
            expected = "image" if field.is_file else "image_url"
            clauses.setdefault("picture", f"; instead of {field.name} send {expected}")
        elif is_scale_missing and plain in _SCALES:
            clauses.setdefault("scale", f"; instead of {field.name} send scale")
    return "".join(clauses.values())
