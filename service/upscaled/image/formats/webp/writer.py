"""Write WebP files, lossy, by libwebp."""

from typing import ClassVar

from upscaled.image.formats.whole_file import WholeFileWriter


class WebpWriter(WholeFileWriter):
    """Writes a WebP file: the chroma at half the width and height, as the format has it.

    Method 2 takes 0.04 s of a core for a megapixel, 4 (the encoder's own choice) 0.09 s and 1 %
    less space.
    """

    format_name = "WEBP"
    options: ClassVar[dict[str, object]] = {"method": 2}
