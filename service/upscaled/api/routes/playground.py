"""Render the page at `/`: its template, with the limits that this server has.

The page's hints and errors quote these figures, so that they agree with what the server refuses.
"""

import html
import json
from importlib.resources import files
from string import Template
from typing import Any, Final

from upscaled.config import MIN_INPUT_SIDE_PX, SCALES, Settings
from upscaled.image.formats.table import FORMATS, Format
from upscaled.image.output import MAX_OUTPUT_SIDE_PX

_MEBIBYTE: Final = 1024 * 1024
_KEY: Final = {"key": "", "key_state": ""}
_NO_KEY: Final = {"key": "none", "key_state": " hidden"}


def render_playground(settings: Settings) -> str:
    """Return the page at `/` as HTML."""
    template = (files("upscaled.api") / "static" / "playground.html").read_text("utf-8")
    return Template(template).substitute(
        limits=html.escape(json.dumps(describe_limits(settings))),
        accept=",".join(
            [
                *(f"image/{each.name.lower()}" for each in _decoded_formats(settings)),
                *_suffixes(settings),
            ]
        ),
        formats=", ".join(each.label for each in _decoded_formats(settings)),
        # Any key is accepted where none is needed, so the page sends one that says so.
        **(_NO_KEY if settings.auth == "none" else _KEY),
        max_file=describe_bytes(settings.max_file_bytes),
        kept=describe_duration(settings.result_ttl_s),
    )


def describe_limits(settings: Settings) -> dict[str, Any]:
    """Return the limits on pictures as the page's scripts read them: sides in pixels.

    Keys: `sides` (the longest side of an input, by scale), `minSide` and `resultSide` (the longest
    of a result), `file` (the largest file, in words), `fileBytes`, `suffixes` (of the names of
    pictures), `keptS` (how long the page keeps results in the browser, as the server does).
    """
    return {
        "sides": {str(scale): settings.max_input_side_px(scale) for scale in SCALES},
        "minSide": MIN_INPUT_SIDE_PX,
        "resultSide": MAX_OUTPUT_SIDE_PX,
        "file": describe_bytes(settings.max_file_bytes),
        "fileBytes": settings.max_file_bytes,
        "suffixes": _suffixes(settings),
        "keptS": settings.result_ttl_s,
    }


def describe_bytes(size_bytes: int) -> str:
    """Return a limit on a file's size in words, never more than it is."""
    if size_bytes < _MEBIBYTE:
        return f"{size_bytes // 1024} KiB"
    tenths = size_bytes * 10 // _MEBIBYTE
    return f"{tenths / 10:g} MiB"


def describe_duration(seconds: int) -> str:
    """Return a time in words, never more than it is."""
    units = {"day": 86_400, "hour": 3600, "minute": 60, "second": 1}
    unit = next(name for name, length in units.items() if seconds >= length)
    count = seconds // units[unit]
    return f"{count} {unit}" if count == 1 else f"{count} {unit}s"


def _decoded_formats(settings: Settings) -> list[Format]:
    """Return the formats that this server decodes, in the table's order."""
    return [each for each in FORMATS.values() if each.name in settings.formats]


def _suffixes(settings: Settings) -> list[str]:
    return [f".{suffix}" for each in _decoded_formats(settings) for suffix in each.suffixes]
