"""Who made a picture and whose it is: the one thing of EXIF that may go on to the result."""

from upscaled.image.exif import ARTIST, COPYRIGHT, Exif, write_texts
from upscaled.image.types import Credit


def read_credit(exif: Exif) -> Credit | None:
    """What the file says, or None where it says neither."""
    credit = Credit(artist=exif.text(ARTIST), copyright=exif.text(COPYRIGHT))
    return credit if credit.artist or credit.copyright else None


def write_exif(credit: Credit) -> bytes:
    """A TIFF block that holds the credit alone."""
    return write_texts({ARTIST: credit.artist, COPYRIGHT: credit.copyright})
