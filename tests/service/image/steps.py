"""Count how often a JPEG file is sniffed, its header parsed, its scans read and it is opened."""

import functools
import importlib
from collections import Counter
from collections.abc import Callable
from typing import Any

READER = "upscaled.image.formats.jpeg.reader"
STEPS = {
    "sniffed": ("upscaled.image.formats.table", "sniff"),
    "header parsed": (READER, "read_leading_segments"),
    "scans read": (READER, "read_scans"),
    "opened": (READER, "open_jpeg"),
}


def count_reading(replace: Callable[[object, str, object], None]) -> Counter[str]:
    """Count each step from now on, in this process.

    Args:
        replace: puts another function in the place of a module's, as `setattr` does.
    """
    counts = Counter[str]()
    for step, (module_name, name) in STEPS.items():
        module = importlib.import_module(module_name)
        replace(module, name, _counted(getattr(module, name), step, counts))
    return counts


def _counted(function: Callable[..., Any], step: str, counts: Counter[str]) -> Callable[..., Any]:
    @functools.wraps(function)
    def counted(*arguments: Any) -> Any:
        counts[step] += 1
        return function(*arguments)

    return counted
