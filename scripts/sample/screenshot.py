"""Write page.jpg, README's picture of the page at /, after it has upscaled the sample.

    .venv/bin/python scripts/sample/screenshot.py

Needs Chromium, and what scripts/setup --dev installs.
"""

import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import ViewportSize, sync_playwright

FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER.parents[1]))

SIZE_PX: ViewportSize = {"width": 1200, "height": 1150}


def main() -> None:
    from tests.running import serve

    with (
        tempfile.TemporaryDirectory() as data_dir,
        serve(Path(data_dir), arguments=("--port", "8000"), UPSCALED_PRECISION="auto") as server,
        sync_playwright() as driver,
    ):
        browser = driver.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page(viewport=SIZE_PX)
        page.goto(server.url)
        page.wait_for_load_state("networkidle")
        shot = Path(data_dir) / "page.png"
        page.screenshot(path=shot)
        browser.close()
        with Image.open(shot) as picture:
            picture.convert("RGB").save(FOLDER / "page.jpg", quality=82, optimize=True)


if __name__ == "__main__":
    main()
