"""Curves over named points, with equal steps between them, on a logarithmic axis, as one SVG."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

WIDTH_PX: Final = 440
HEIGHT_PX: Final = 300
LEFT_PX, TOP_PX, RIGHT_PX, BOTTOM_PX = 56, 40, 100, 46
LINE_PX: Final = 14
STYLE: Final = (
    "text{font:12px system-ui,sans-serif;fill:#57606a}.title{font-size:13px;font-weight:600}"
    ".grid{stroke:#d0d7de;stroke-width:1}path{fill:none;stroke-width:2}"
)
COLOURS: Final = ("#0969da", "#bc4c00", "#57606a")


@dataclass(frozen=True, slots=True)
class Panel:
    """Curves by name, each of values by point; each ends in its name and its last value."""

    title: str
    axis: str
    curves: Mapping[str, Mapping[str, float]]


def draw(panels: Sequence[Panel]) -> str:
    """Write the panels side by side as the text of an SVG file."""
    parts = [
        f'<g transform="translate({at * WIDTH_PX})">{"".join(_draw_panel(panel))}</g>'
        for at, panel in enumerate(panels)
    ]
    width = WIDTH_PX * len(panels)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT_PX}" '
        f'width="{width}" height="{HEIGHT_PX}"><style>{STYLE}</style>'
        f'<rect width="{width}" height="{HEIGHT_PX}" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


def _draw_panel(panel: Panel) -> list[str]:
    values = [value for curve in panel.curves.values() for value in curve.values()]
    points = list(dict.fromkeys(point for curve in panel.curves.values() for point in curve))
    bottom, right = HEIGHT_PX - BOTTOM_PX, WIDTH_PX - RIGHT_PX
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))

    def y(value: float) -> float:
        return bottom - (bottom - TOP_PX) * (math.log10(value) - low) / (high - low)

    def x(point: str) -> float:
        return LEFT_PX + (right - LEFT_PX) * (points.index(point) + 0.5) / len(points)

    def text(words: str, x_px: float, y_px: float, more: str = 'text-anchor="middle"') -> str:
        return f'<text x="{x_px:.1f}" y="{y_px:.1f}" {more}>{words}</text>'

    parts = [text(panel.title, LEFT_PX, 22, 'class="title"')]
    for tick in (10.0**power for power in range(low, high + 1)):
        parts.append(f'<path class="grid" d="M{LEFT_PX} {y(tick):.1f}H{right}"/>')
        parts.append(text(f"{tick:g}", LEFT_PX - 8, y(tick) + 4, 'text-anchor="end"'))
    parts += [text(point, x(point), bottom + 18) for point in points]
    parts.append(text(panel.axis, (LEFT_PX + right) / 2, HEIGHT_PX - 8))
    for curve, colour in zip(panel.curves.values(), COLOURS, strict=False):
        line = "L".join(f"{x(point):.1f} {y(value):.1f}" for point, value in curve.items())
        parts.append(f'<path stroke="{colour}" d="M{line}"/>')
        for point, value in curve.items():
            at = f'cx="{x(point):.1f}" cy="{y(value):.1f}"'
            parts.append(f'<circle {at} r="3.5" fill="{colour}"/>')
    last, lowest = points[-1], 0.0
    ends = zip(panel.curves.items(), COLOURS, strict=False)
    for (name, curve), colour in sorted(ends, key=lambda end: -end[0][1][last]):
        lowest = max(y(curve[last]) + 4, lowest + LINE_PX)
        style = f'style="fill:{colour}"'
        parts.append(text(f"{name} {curve[last]:.3g}", x(last) + 10, lowest, style))
    return parts
