"""The photo that containers are sent, and what becomes of it."""

from io import BytesIO

import requests
from PIL import Image, ImageChops, ImageStat

from tests.docker.conftest import ROOT

SAMPLE = ROOT / "scripts" / "sample" / "cat.jpg"


def is_ready(url: str) -> bool:
    """Return whether the service there says that it is ready."""
    try:
        return requests.get(f"{url}/readyz", timeout=5).status_code == 200
    except requests.RequestException:
        return False


def send_sample(url: str, key: str, accept: str) -> requests.Response:
    """Send the photo to be made twice as large, and return the successful answer."""
    answer = requests.post(
        f"{url}/v1/upscale",
        headers={"X-API-KEY": key, "Accept": accept},
        files={"image": SAMPLE.read_bytes()},
        data={"scale": "2"},
        timeout=240,
    )
    assert answer.status_code == 200, answer.text
    return answer


def fetch_result(url: str, key: str, public_url: str = "") -> bytes:
    """Have the photo's result stored, and return it as it is served.

    Args:
        public_url: in the result's URL in place of `url`.
    """
    stored = send_sample(url, key, "application/json").json()["result_url"]
    if public_url:
        stored = stored.replace(public_url, url)
    result = requests.get(stored, timeout=60)
    result.raise_for_status()
    check_result(result.content)
    return result.content


def check_result(result: bytes) -> None:
    """Check that the result is the sample, twice as large."""
    with Image.open(SAMPLE) as before, Image.open(BytesIO(result)) as after:
        assert after.size == (before.width * 2, before.height * 2)
        smaller = after.convert("RGB").resize(before.size, Image.Resampling.BOX)
        difference = ImageChops.difference(smaller, before.convert("RGB"))
    assert max(ImageStat.Stat(difference).mean) < 4
