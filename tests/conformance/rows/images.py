# ruff: noqa: E501 - a row of the table is a line
"""Rows of accepted images, the format of the response, and refused files."""

from tests.conformance.table import AT_ONCE_S, Refused, Row, Upscaled, form

FORMAT = (
    "output format: JPEG; PNG if the input has an alpha channel (RGBA, LA, palette or tRNS "
    "transparency), also when it is fully opaque"
)
TAKEN = "images taken: JPEG (also CMYK, grey, progressive), PNG (every colour type and depth), static WebP"
FIRST = "APNG and animated WebP: the first frame"
BYTES = "bytes decide, never the part's Content-Type or file name"
UPRIGHT = "EXIF orientation is applied to the pixels and the tag dropped"
MALFORMED = "400 malformed_image: garbage, truncated, zero bytes"
FORMATS = (
    "400 unsupported_image_format: a recognised format that is not enabled (GIF, SVG, PDF, PSD ...)"
)

JPEG_OUT = (
    "photo",
    "grey_jpeg",
    "progressive_jpeg",
    "cmyk_jpeg",
    "webp",
    "png",
    "palette_png",
    "one_bit_png",
    "sixteen_bit_png",
)
PNG_OUT = (
    "rgba_png",
    "opaque_rgba_png",
    "la_png",
    "palette_trns_png",
    "rgb_trns_png",
    "grey_trns_png",
    "webp_alpha",
)
BROKEN = (
    "garbage",
    "text_file",
    "html_page",
    "zero_bytes",
    "one_byte",
    "jpeg_header_alone",
    "truncated_jpeg",
    "truncated_png",
    "truncated_webp",
)
OTHER_FORMATS = (
    "gif",
    "gif_named_png",
    "bmp",
    "tiff",
    "avif",
    "heic",
    "svg",
    "svg_with_xml_head",
    "pdf",
    "psd",
)

IMAGES = (
    *(Row(f"{name} is answered as JPEG", FORMAT, form(name), Upscaled()) for name in JPEG_OUT),
    *(Row(f"{name} is answered as PNG", FORMAT, form(name), Upscaled()) for name in PNG_OUT),
    *(Row(f"{name} is answered as PNG at 4x", FORMAT, form(name, "4"), Upscaled(4)) for name in PNG_OUT[:2]),
    Row("of an animated WebP the first frame is taken", FIRST, form("animated_webp"), Upscaled()),
    Row("of an animated PNG the first frame is taken", FIRST, form("apng"), Upscaled()),
    Row("an octet-stream without an extension is taken", BYTES, form("photo", "2", file_name="photo", media_type="application/octet-stream"), Upscaled(), "seen"),
    Row("a JPEG called text is taken", BYTES, form("photo", "2", file_name="blob", media_type="text/plain"), Upscaled(), "seen"),
    Row("a WebP named jpg is taken", BYTES, form("webp_named_jpg"), Upscaled(), "seen"),
    Row("a PNG called image/gif is taken", BYTES, form("png", "2", media_type="image/gif"), Upscaled(), "seen"),
    *(
        Row(f"EXIF orientation {value} is applied", UPRIGHT, form(f"orientation_{value}"), Upscaled())
        for value in range(1, 9)
    ),
    Row("the orientation of a PNG is applied", UPRIGHT, form("orientation_6_png"), Upscaled()),
    Row("the orientation of a WebP is applied", UPRIGHT, form("orientation_6_webp"), Upscaled()),
    *(Row(f"{name} is malformed", MALFORMED, form(name), Refused("malformed_image", within_s=AT_ONCE_S)) for name in BROKEN),
    *(
        Row(f"{name} is not supported", FORMATS, form(name), Refused("unsupported_image_format", within_s=AT_ONCE_S))
        for name in OTHER_FORMATS
    ),
)  # fmt: skip
