"""Find how much a JPEG file was compressed: the quality of its quantisation table.

"Quality" is libjpeg's number of 1 to 100, by which it scales the example table of ITU-T T.81,
annex K. Each number gives a table of another sum, so a table's sum gives the number back. Other
encoders (Photoshop, cameras, mozjpeg) have tables of their own: theirs is the number whose table
has the nearest sum, that is the same mean step.
"""

from functools import cache
from typing import Final

from upscaled.image.formats.jpeg import segments

# T.81, table K.1: the example for luminance, in rows.
_LUMINANCE: Final = (
    *(16, 11, 10, 16, 24, 40, 51, 61),
    *(12, 12, 14, 19, 26, 58, 60, 55),
    *(14, 13, 16, 24, 40, 57, 69, 56),
    *(14, 17, 22, 29, 51, 87, 80, 62),
    *(18, 22, 37, 56, 68, 109, 103, 77),
    *(24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101),
    *(72, 92, 95, 98, 112, 100, 103, 99),
)


def read_quality(leading: segments.LeadingSegments) -> int:
    """Find libjpeg's quality, 1 to 100, for the table of the file's first channel."""
    # T.81, B.2.2: the table's number follows a channel's sampling factors.
    wanted = leading.frame.data[8]
    tables = dict[int, tuple[int, ...]]()
    for segment in leading.tables:
        if segment.marker == segments.DQT:
            tables.update(segments.iterate_quantisation_tables(segment.data))
    if wanted not in tables:
        raise ValueError(f"no quantisation table {wanted}")
    return find_quality(tables[wanted])


def find_quality(table: tuple[int, ...]) -> int:
    """Find the quality, 1 to 100, whose table's sum is nearest to that of 64 quantisation steps."""
    distances = [abs(each - sum(table)) for each in _list_sums()]
    return distances.index(min(distances)) + 1


@cache
def _list_sums() -> tuple[int, ...]:
    """Sum libjpeg's luminance table for each quality of 1 to 100; the sums fall."""
    sums = list[int]()
    for quality in range(1, 101):
        percent = 5000 // quality if quality < 50 else 200 - 2 * quality
        steps = ((step * percent + 50) // 100 for step in _LUMINANCE)
        sums.append(sum(min(255, max(1, step)) for step in steps))
    return tuple(sums)
