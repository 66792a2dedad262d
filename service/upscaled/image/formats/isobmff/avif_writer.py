"""Write AVIF files by libavif and libaom."""

from typing import ClassVar

from upscaled.image.formats.whole_file import WholeFileWriter


class AvifWriter(WholeFileWriter):
    """Writes an AVIF file without chroma subsampling.

    At speed 8 a photo of 1280 x 960 takes 0.5 s; at 6, the encoder's own choice, 1.5 s and 6 %
    less space.
    """

    format_name = "AVIF"
    options: ClassVar[dict[str, object]] = {"subsampling": "4:4:4", "speed": 8}
