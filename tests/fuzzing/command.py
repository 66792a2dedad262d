"""`scripts/fuzz`: damaged files against a server of its own, for a number of files or minutes."""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import requests

from tests.bilinear_model import add_bilinear_model
from tests.fuzzing.campaign import Campaign, Statistics, find_faults
from tests.fuzzing.seeds import make_seeds
from tests.running import Server, serve
from tests.service.image.samples import picture, save

FAST: dict[str, Any] = {
    "UPSCALED_MODEL_X2": "bilinear",
    "UPSCALED_THREADS": "1",
    "UPSCALED_RATE_PER_S": "1000000",
    "UPSCALED_RATE_BURST": "1000000",
    "UPSCALED_EXTRA_FORMATS": "avif,bmp,heic,tiff",
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--files", type=int, help="end after so many files instead")
    parser.add_argument("--seed", type=int, default=0, help="the same files at every run")
    parser.add_argument("--keep", type=Path, help="folder for the files of failures")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        add_bilinear_model(Path(folder))
        with serve(Path(folder), **FAST) as server:
            campaign = Campaign(server, list(make_seeds(find_images()).values()), arguments.seed)
            if arguments.files:
                statistics = campaign.run(files=arguments.files)
            else:
                statistics = campaign.run(seconds=60 * arguments.minutes)
            is_sound = still_works(server)
    if arguments.keep:
        keep(campaign, statistics, arguments.keep)
    print(json.dumps(describe(statistics), indent=1))
    sys.exit(0 if is_sound and not find_faults(statistics) else 1)


def find_images() -> Path | None:
    """The optional test data, as `tests/conftest.py` finds it."""
    default = Path(__file__).resolve().parents[2].parent / "shared"
    folder = Path(os.environ.get("TEST_DATA_DIR", default)) / "images"
    return folder if folder.is_dir() else None


def still_works(server: Server) -> bool:
    """Return whether a sound file is answered as ever."""
    answer = requests.post(
        f"{server.url}/v1/upscale",
        headers={"X-API-KEY": server.key, "Accept": "image/*"},
        data={"scale": "2"},
        files={"image": ("f", save(picture(64, 64), "PNG"))},
        timeout=60,
    )
    return answer.status_code == 200


def describe(statistics: Statistics) -> dict[str, object]:
    rss_kib = [kib for _, kib in statistics.rss_kib]
    return {
        "files": statistics.files,
        "outcomes": dict(statistics.outcomes.most_common()),
        "failures": len(statistics.failures),
        "slowest_refusal_s": round(statistics.slowest_refusal_s, 3),
        "slowest_refusal": statistics.slowest_refusal,
        "slowest_success_s": round(statistics.slowest_success_s, 3),
        "slowest_success": statistics.slowest_success,
        "slowest_success_stages": statistics.slowest_success_stages,
        "decoder_deaths": statistics.decoder_deaths,
        "front_end_mib": [
            round(kib / 1024, 1)
            for kib in (*rss_kib[:1], *rss_kib[len(rss_kib) // 2 :][:1], *rss_kib[-1:])
        ],
        "worker_mib": [
            round(kib / 1024, 1)
            for kib in (
                *statistics.worker_kib[:1],
                *statistics.worker_kib[-1:],
                max(statistics.worker_kib, default=0),
            )
        ],
        "front_end_kib_per_1000_files": round(statistics.slope_kib_per_1000, 1),
        "faults": find_faults(statistics),
    }


def keep(campaign: Campaign, statistics: Statistics, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in {*statistics.failures, statistics.slowest_refusal, statistics.slowest_success} - {
        -1
    }:
        (folder / f"{number}").write_bytes(campaign.make(number))
