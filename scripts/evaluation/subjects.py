"""Draw the subjects of the sheets that no photograph is needed for: text, line art, logo and more.

Photographs of the other subjects (face, hair, fur, foliage, fabric, night) are the user's own, in
the same folder. Everything is drawn at four times the size and shrunk by area.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Pixels = NDArray[np.uint8]

SIDE_PX = 240
_OVER = 4
_SIDE = SIDE_PX * _OVER

_LINES = (
    (38, "Upscaled x4"),
    (30, "quick brown fox"),
    (25, "jumps over 01234"),
    (21, "Total: EUR 1,234.50"),
    (17, "return y[i] + 0x1F; // ok"),
    (14, "Small print: section 4.2, p. 17"),
)
"""Sizes in px: a quarter of them, 9 down to 4 px, is what the small picture has."""


def draw_subjects(folder: Path) -> list[Path]:
    """Write one 240x240 PNG per drawn subject into `folder`; the same pixels on every run."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, draw in SUBJECTS.items():
        written.append(folder / f"{name}.png")
        Image.fromarray(draw()).save(written[-1])
    return written


def draw_text() -> Pixels:
    """Black on white in six sizes, and a line of white on dark."""
    page = Image.new("RGB", (_SIDE, _SIDE), "white")
    _write_lines(page, top=4, ink="black")
    draw = ImageDraw.Draw(page)
    draw.rectangle((0, 206 * _OVER, _SIDE, _SIDE), fill=(28, 40, 74))
    draw.text((40, 208 * _OVER), "Night mode 12:45", fill="white", font=_font(24))
    return _shrunk(page)


def draw_line_art() -> Pixels:
    """Ink on white: hatching, circles, a spiral, and curves that grow from hair-fine to bold."""
    page = Image.new("RGB", (_SIDE, _SIDE), "white")
    draw = ImageDraw.Draw(page)
    for number in range(26):
        left = 24 + number * 18
        draw.line((left, 24, left - 60 + number * 4, 420), fill="black", width=2 + number // 6)
    for number in range(9):
        radius = 30 + number * 22
        box = (700 - radius, 230 - radius, 700 + radius, 230 + radius)
        draw.ellipse(box, outline="black", width=3 + number % 3 * 3)
    spiral = [
        (240 + (6 + 2.4 * turn) * math.cos(turn / 5), 700 + (6 + 2.4 * turn) * math.sin(turn / 5))
        for turn in range(85)
    ]
    draw.line(spiral, fill="black", width=7, joint="curve")
    for number in range(8):
        wave = [
            (500 + x, 500 + number * 55 + 24 * math.sin(x / 38 + number)) for x in range(0, 430, 4)
        ]
        draw.line(wave, fill="black", width=2 + 2 * number, joint="curve")
    return _shrunk(page)


def draw_logo() -> Pixels:
    """Flat strong colours that meet: a badge of discs and a triangle with a name below."""
    page = Image.new("RGB", (_SIDE, _SIDE), "white")
    draw = ImageDraw.Draw(page)
    draw.ellipse((180, 60, 780, 660), fill=(214, 31, 45))
    draw.ellipse((250, 130, 710, 590), fill=(255, 200, 0))
    draw.polygon([(480, 170), (660, 500), (300, 500)], fill=(0, 92, 185))
    draw.polygon([(480, 280), (560, 430), (400, 430)], fill="white")
    draw.arc((120, 0, 840, 720), 200, 340, fill=(0, 128, 72), width=28)
    draw.text((480, 700), "NORDWIND", fill=(20, 20, 24), font=_font(36), anchor="ma")
    draw.text((480, 860), "coffee roasters", fill=(120, 120, 124), font=_font(15), anchor="ma")
    return _shrunk(page)


def draw_product() -> Pixels:
    """Draw a labelled bottle on white, shaded, with a soft shadow and a highlight."""
    ys, xs = np.mgrid[0:_SIDE, 0:_SIDE].astype(np.float32)
    canvas = np.full((_SIDE, _SIDE, 3), 255, np.float32)
    shadow = np.exp(-(((xs - 520) / 260) ** 2) - ((ys - 880) / 30) ** 2)
    canvas -= 110 * shadow[..., None]
    half_width = np.where(ys < 250, 70, np.minimum(190, 70 + (ys - 250) * 0.9))
    across = (xs - 480) / half_width
    inside = (np.abs(across) <= 1) & (ys > 90) & (ys < 885)
    light = 0.35 + 0.65 * np.sqrt(np.clip(1 - (across + 0.25) ** 2 * 0.6, 0, 1))
    glass = np.array([36, 108, 70], np.float32) * light[..., None]
    glass += 120 * np.exp(-(((across + 0.55) / 0.08) ** 2))[..., None]
    canvas = np.where(inside[..., None], glass, canvas)
    cap = (np.abs(across) <= 1.05) & (ys > 60) & (ys < 150)
    ridges = (160 + 50 * np.cos(xs / 5))[..., None] * np.array([0.9, 0.86, 0.7], np.float32)
    canvas = np.where(cap[..., None], ridges, canvas)
    page = Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(page)
    draw.rectangle((300, 500, 660, 780), fill=(246, 240, 222), outline=(150, 120, 60), width=6)
    draw.text((480, 530), "OLIVE", fill=(50, 70, 30), font=_font(24), anchor="ma")
    draw.text((480, 640), "extra virgin", fill=(90, 80, 50), font=_font(13), anchor="ma")
    draw.text((480, 706), "500 ml  No. 7", fill=(90, 80, 50), font=_font(11), anchor="ma")
    return _shrunk(page)


def draw_old_scan() -> Pixels:
    """Draw a yellowed page: soft ink, stains, a fold, paper grain."""
    rng = np.random.default_rng(1)
    page = Image.new("RGB", (_SIDE, _SIDE), (226, 208, 168))
    _write_lines(page, top=8, ink=(58, 44, 36))
    ImageDraw.Draw(page).rectangle((80, 840, 880, 930), outline=(70, 54, 44), width=5)
    page_px = _shrunk(page).astype(np.float32)
    page_px = np.asarray(cv2.GaussianBlur(page_px, (0, 0), 0.7), np.float32)
    stains = cv2.GaussianBlur(rng.standard_normal((SIDE_PX, SIDE_PX)), (0, 0), 24)
    page_px += (stains / np.abs(stains).max() * 16)[..., None]
    page_px[:, 118:121] += np.array([14, -22, 8], np.float32)[None, :, None]
    page_px += rng.standard_normal((SIDE_PX, SIDE_PX, 1)) * 4
    return np.clip(np.rint(page_px), 0, 255).astype(np.uint8)


SUBJECTS: Mapping[str, Callable[[], Pixels]] = {
    "text": draw_text,
    "line-art": draw_line_art,
    "logo": draw_logo,
    "product-on-white": draw_product,
    "old-scan": draw_old_scan,
}


def _write_lines(page: Image.Image, *, top: int, ink: str | tuple[int, int, int]) -> None:
    draw = ImageDraw.Draw(page)
    top *= _OVER
    for size_px, line in _LINES:
        draw.text((10 * _OVER, top), line, fill=ink, font=_font(size_px))
        top += int(size_px * 1.32) * _OVER


def _font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font, so that no machine's fonts matter; `size_px` at the final size."""
    return ImageFont.load_default(size_px * _OVER)


def _shrunk(page: Image.Image) -> Pixels:
    return np.asarray(page.reduce(_OVER), np.uint8)
