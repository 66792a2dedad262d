"""Send a photo to a service, save the answer: client.py BASE_URL API_KEY PHOTO RESULT [SCALE]."""

import sys
from pathlib import Path

import httpx


def main(base_url: str, api_key: str, photo: str, result: str, scale: str = "4") -> None:
    answer = httpx.post(
        f"{base_url}/v1/upscale",
        headers={"X-API-KEY": api_key, "Accept": "image/*"},
        files={"image": Path(photo).read_bytes()},
        data={"scale": scale},
        timeout=240,
    )
    print(answer.status_code, answer.headers["content-type"])
    Path(result).write_bytes(answer.content)


if __name__ == "__main__":
    main(*sys.argv[1:])
