"""Throughput by image size and by clients, as one SVG picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

WIDTH_PX: Final = 440
HEIGHT_PX: Final = 300
LEFT_PX, TOP_PX, RIGHT_PX, BOTTOM_PX = 56, 40, 16, 46
STYLE: Final = (
    "text{font:12px system-ui,sans-serif;fill:#57606a}.title{font-size:13px;font-weight:600}"
    ".grid{stroke:#d0d7de;stroke-width:1}.line{fill:none;stroke:#0969da;stroke-width:2}"
    ".dot{fill:#0969da}"
)


@dataclass(frozen=True, slots=True)
class Panel:
    """One line of values over names, with equal steps between them."""

    title: str
    axis: str
    points: Sequence[tuple[str, float]]


def draw(panels: Sequence[Panel]) -> str:
    """The panels side by side, as the text of an SVG file."""
    parts = [_draw_panel(panel, at * WIDTH_PX) for at, panel in enumerate(panels)]
    width = WIDTH_PX * len(panels)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT_PX}" '
        f'width="{width}" height="{HEIGHT_PX}"><style>{STYLE}</style>'
        f'<rect width="{width}" height="{HEIGHT_PX}" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


def nice_ceiling(value: float) -> float:
    """The least of 1, 2, 2.5, 5, 10 times a power of ten that is not below `value`."""
    step = 10.0**-6
    while True:
        for factor in (1, 2, 2.5, 5):
            if step * factor >= value:
                return step * factor
        step *= 10


def _draw_panel(panel: Panel, left: int) -> str:
    top_value = nice_ceiling(max(value for _, value in panel.points) or 1)
    span_x = WIDTH_PX - LEFT_PX - RIGHT_PX
    span_y = HEIGHT_PX - TOP_PX - BOTTOM_PX
    bottom = TOP_PX + span_y
    texts = [f'<text class="title" x="{left + LEFT_PX}" y="22">{panel.title}</text>']
    for at in range(5):
        y = bottom - span_y * at / 4
        end = left + WIDTH_PX - RIGHT_PX
        texts.append(f'<path class="grid" d="M{left + LEFT_PX} {y:.1f}H{end}"/>')
        label = f"{top_value * at / 4:g}"
        texts.append(
            f'<text x="{left + LEFT_PX - 8}" y="{y + 4:.1f}" text-anchor="end">{label}</text>'
        )
    places = []
    for at, (name, value) in enumerate(panel.points):
        x = left + LEFT_PX + span_x * (at + 0.5) / len(panel.points)
        y = bottom - span_y * value / top_value
        places.append(f"{x:.1f} {y:.1f}")
        texts.append(f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>')
        texts.append(f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{name}</text>')
        texts.append(f'<text x="{x:.1f}" y="{y - 8:.1f}" text-anchor="middle">{value:.3g}</text>')
    middle = left + LEFT_PX + span_x / 2
    texts.append(
        f'<text x="{middle:.1f}" y="{HEIGHT_PX - 8}" text-anchor="middle">{panel.axis}</text>'
    )
    return f'<path class="line" d="M{"L".join(places)}"/>{"".join(texts)}'
