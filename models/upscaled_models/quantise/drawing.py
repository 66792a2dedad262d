"""Draw pages of text, line art and flat shapes, which occur on screens and hardly in photos."""

import string
from typing import Final

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

PAGE_PX: Final = 384
SUPERSAMPLING: Final = 2
WORDS: Final = """
    the quick brown fox jumps over lazy dog Upscaled pixel window halo region scale model worker
    Invoice Total 1234.50 EUR 27% page (see p. 8) a+b=c; if (x < 3) return None; Strasse 17
    MENU OPEN CLOSED Exit 24/7 www.example.org ISO 9001 Fig. 2 Table 3: results
""".split()  # noqa: SIM905


def draw_page(rng: Generator) -> NDArray[np.uint8]:
    """Draw one `[384, 384, 3]` uint8 RGB page of shapes, lines and text, shrunk from twice that."""
    side = PAGE_PX * SUPERSAMPLING
    canvas = _ground(rng, side)
    for _ in range(int(rng.integers(0, 7))):
        _shape(rng, canvas)
    for _ in range(int(rng.integers(0, 12))):
        _line(rng, canvas)
    if rng.random() < 0.35:
        _screen(rng, canvas)
    page = Image.fromarray(canvas)
    _text(rng, page)
    small = cv2.resize(np.asarray(page), (PAGE_PX, PAGE_PX), interpolation=cv2.INTER_AREA)
    return np.asarray(small, dtype=np.uint8)


def _colour(rng: Generator) -> tuple[int, int, int]:
    """Draw a colour: often black, white or nearly so, else any."""
    kind = rng.random()
    if kind < 0.3:
        level = int(rng.choice([0, 0, 16, 235, 255, 255]))
        return level, level, level
    red, green, blue = (int(value) for value in rng.integers(0, 256, 3))
    return red, green, blue


def _ground(rng: Generator, side: int) -> NDArray[np.uint8]:
    """Draw a flat ground, or a gradient between two colours."""
    first, second = np.array(_colour(rng), np.float32), np.array(_colour(rng), np.float32)
    is_flat = rng.random() < 0.7
    angle = rng.uniform(0, 2 * np.pi)
    if is_flat:
        return np.full((side, side, 3), first.astype(np.uint8))
    places = np.arange(side).astype(np.float32) / side - 0.5
    along = (places * np.cos(angle))[None, :] + (places * np.sin(angle))[:, None]
    share = np.clip(0.5 + along / 1.4, 0, 1)[..., None]
    return np.ascontiguousarray(np.rint(first + (second - first) * share).astype(np.uint8))


def _shape(rng: Generator, canvas: NDArray[np.uint8]) -> None:
    side = canvas.shape[0]
    centre = (int(rng.integers(0, side)), int(rng.integers(0, side)))
    thickness = -1 if rng.random() < 0.6 else int(rng.integers(1, 10))
    kind = rng.integers(0, 3)
    if kind == 0:
        axes = (int(rng.integers(4, 160)), int(rng.integers(4, 160)))
        turn = float(rng.uniform(0, 180))
        cv2.ellipse(canvas, centre, axes, turn, 0, 360, _colour(rng), thickness, cv2.LINE_AA)
    elif kind == 1:
        corner = (centre[0] + int(rng.integers(4, 300)), centre[1] + int(rng.integers(4, 300)))
        cv2.rectangle(canvas, centre, corner, _colour(rng), thickness, cv2.LINE_AA)
    else:
        count = int(rng.integers(3, 9))
        points = np.array(centre) + rng.integers(-180, 180, (count, 2))
        cv2.fillPoly(canvas, [points.astype(np.int32)], _colour(rng), cv2.LINE_AA)


def _line(rng: Generator, canvas: NDArray[np.uint8]) -> None:
    """Draw a straight line or a fan of parallel ones, hair-fine to bold."""
    side = canvas.shape[0]
    start, end = rng.integers(0, side, 2), rng.integers(0, side, 2)
    thickness = int(rng.choice([1, 2, 2, 3, 4, 6, 10]))
    colour = _colour(rng)
    step = rng.integers(6, 30, 2) if rng.random() < 0.5 else np.zeros(2, np.int64)
    for number in range(int(rng.integers(3, 14)) if step.any() else 1):
        shift = step * number
        first, last = (start + shift).tolist(), (end + shift).tolist()
        cv2.line(canvas, first, last, colour, thickness, cv2.LINE_AA)


def _screen(rng: Generator, canvas: NDArray[np.uint8]) -> None:
    """Draw a patch of checkerboard, stripes or dots, the worst case for aliasing."""
    side, period = canvas.shape[0], int(rng.integers(4, 24))
    top, left = (int(value) for value in rng.integers(0, side - 200, 2))
    ys, xs = np.mgrid[0:200, 0:200]
    kind = rng.integers(0, 3)
    if kind == 0:
        mask = (ys // period + xs // period) % 2 == 0
    elif kind == 1:
        mask = (ys * int(rng.integers(0, 3)) + xs) // period % 2 == 0
    else:
        mask = (ys % (2 * period) - period) ** 2 + (xs % (2 * period) - period) ** 2 < period**2 / 3
    canvas[top : top + 200, left : left + 200][mask] = _colour(rng)


def _text(rng: Generator, page: Image.Image) -> None:
    """Draw words in Pillow's own font and OpenCV's stroke fonts."""
    draw = ImageDraw.Draw(page)
    for _ in range(int(rng.integers(1, 9))):
        left, top = int(rng.integers(-40, 560)), int(rng.integers(0, 720))
        size_px = float(rng.choice([16, 20, 24, 28, 36, 48, 72, 110]))
        font = ImageFont.load_default(size_px)
        colour = _colour(rng)
        for row in range(int(rng.integers(1, 7))):
            corner = (left, top + int(row * size_px * 1.3))
            draw.text(corner, _words(rng), fill=colour, font=font)
    strokes = np.array(page)
    for _ in range(int(rng.integers(0, 3))):
        corner = (int(rng.integers(0, 500)), int(rng.integers(40, 760)))
        face, scale = int(rng.integers(0, 8)), float(rng.uniform(0.6, 2.5))
        thickness = int(rng.integers(1, 4))
        cv2.putText(strokes, _words(rng), corner, face, scale, _colour(rng), thickness, cv2.LINE_AA)
    page.paste(Image.fromarray(strokes))


def _words(rng: Generator) -> str:
    if rng.random() < 0.15:
        return "".join(rng.choice(list(string.ascii_letters + string.digits), 24))
    return " ".join(rng.choice(WORDS, int(rng.integers(2, 9))))
