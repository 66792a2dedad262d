"""The page at / as a test handles it."""

import io
import re
from pathlib import Path
from typing import Any

from PIL import Image

RED = (220, 30, 40)
CYAN = tuple(255 - channel for channel in RED)


# Resolves once the element has shown a text, looked for on every frame. Not Playwright's own
# waiting for a function: that needs what the page's policy forbids.
_SEE = """([id, text]) => new Promise((seen) => {
  const look = () => document.getElementById(id).textContent.includes(text)
    ? seen(true) : requestAnimationFrame(look);
  look();
})"""


class Playground:
    """`page` is Playwright's; `key` is an API key that works; `requested` are the URLs loaded."""

    def __init__(self, page: Any, url: str, key: str) -> None:
        self.page = page
        self.url = url
        self.key = key
        self._expected: list[str] = []
        self.requested: list[str] = []
        self._console: list[str] = []
        page.on("request", lambda request: self.requested.append(request.url))
        page.on("console", lambda message: self._hear(message.type, message.text))
        page.on("pageerror", lambda error: self._hear("error", str(error)))

    def _hear(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self._console.append(text)

    def open(self, path: str = "/") -> None:
        self.page.goto(self.url + path)

    def expect_console_error(self, pattern: str) -> None:
        """Allow an error on the console; Chromium itself logs every refused request there."""
        self._expected.append(pattern)

    def unexpected_console_errors(self) -> list[str]:
        return [
            text
            for text in self._console
            if not any(re.search(pattern, text) for pattern in self._expected)
        ]

    def choose(self, data: bytes, name: str = "photo.png") -> None:
        mime_type = "image/png" if data.startswith(b"\x89PNG") else "image/jpeg"
        self.page.set_input_files("#image", {"name": name, "mimeType": mime_type, "buffer": data})

    def send(self, key: str = "") -> None:
        self.page.fill("#key", key or self.key)
        self.page.click("#send")

    def wait_for_result(self) -> None:
        self.page.wait_for_selector("#facts:not([hidden])")
        self.page.wait_for_selector("#send[aria-disabled=false]")

    def upscale(self, data: bytes, scale: int = 2, name: str = "photo.png") -> None:
        """Choose, send and wait for the result."""
        self.choose(data, name)
        self.page.check(f"[name=scale][value='{scale}']", force=True)
        self.send()
        self.wait_for_result()

    def zoom(self, zoom: str) -> None:
        self.page.check(f"[name=zoom][value='{zoom}']", force=True)

    def choose_language(self, language: str) -> None:
        self.page.check(f"[name=language][value='{language}']", force=True)

    def text(self, element_id: str) -> str:
        return str(self.page.inner_text(f"#{element_id}"))

    def see(self, element_id: str, text: str) -> None:
        """Wait until it is shown, be it for a single frame."""
        self.page.evaluate(_SEE, [element_id, text])

    def failure(self) -> str:
        self.page.wait_for_selector("#failure:not([hidden])")
        return self.text("failure")

    def focused(self) -> str:
        """The id of what has the focus, or its name where it has none."""
        return str(self.page.evaluate("document.activeElement.id || document.activeElement.name"))

    def colour_at(self, x: float, y: float = 0.5) -> tuple[int, ...]:
        """Return the colour on the stage at shares of its width and height."""
        with Image.open(io.BytesIO(self.page.locator("#stage").screenshot())) as stage:
            rgb = stage.convert("RGB")
            at = (int(x * (rgb.width - 1)), int(y * (rgb.height - 1)))
            return tuple(int(channel) for channel in rgb.getpixel(at))  # type: ignore[union-attr]

    def boundary(self) -> float:
        """Return the share of a red picture that shows "before", at 80 % of the stage's height."""
        with Image.open(io.BytesIO(self.page.locator("#stage").screenshot())) as stage:
            rgb = stage.convert("RGB")
            row = [rgb.getpixel((x, int(0.8 * rgb.height))) for x in range(rgb.width)]
        before, after = (sum(is_near(pixel, colour) for pixel in row) for colour in (RED, CYAN))
        return before / (before + after)

    def result_bytes(self, folder: Path) -> tuple[str, bytes]:
        """The name and content of what the download button saves."""
        with self.page.expect_download() as download:
            self.page.click("#download")
        path = folder / "saved"
        download.value.save_as(path)
        return download.value.suggested_filename, path.read_bytes()


def is_near(pixel: Any, colour: tuple[int, ...]) -> bool:
    return all(abs(one - other) <= 12 for one, other in zip(pixel, colour, strict=True))


def red_picture(width_px: int = 160, height_px: int = 120, alpha: int | None = None) -> bytes:
    file = io.BytesIO()
    mode, colour = ("RGB", RED) if alpha is None else ("RGBA", (*RED, alpha))
    Image.new(mode, (width_px, height_px), colour).save(file, "PNG")
    return file.getvalue()
