"""Write WebP files, lossy, by libwebp."""

from typing import ClassVar

from upscaled.image.formats.whole_file import WholeFileWriter


class WebpWriter(WholeFileWriter):
    """Writes a WebP file: the chroma at half the width and height, as the format has it."""

    format_name = "WEBP"
    options: ClassVar[dict[str, object]] = {"method": 4}
