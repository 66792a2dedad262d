"""Write AVIF files by libavif and libaom."""

from typing import ClassVar

from upscaled.image.formats.whole_file import WholeFileWriter


class AvifWriter(WholeFileWriter):
    """Writes an AVIF file without chroma subsampling.

    At speed 9 a photo of 1280 x 960 takes 0.1 s of a core; at 6, the encoder's own choice, 0.7 s
    and 5 % less space; at 8 0.28 s and no less.
    """

    format_name = "AVIF"
    options: ClassVar[dict[str, object]] = {"subsampling": "4:4:4", "speed": 9}
