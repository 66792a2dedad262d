import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.benchmark.command import PARTS

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.timeout(450)
def test_the_command_measures_everything_and_ends_with_one_document(tmp_path: Path) -> None:
    answer = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "bench"), "--quick"],
        cwd=tmp_path,
        env=os.environ | {"UPSCALED_DATA_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=400,
        check=True,
    )
    *table, last = answer.stdout.splitlines()
    report = json.loads(last)
    assert report["is_quick"]
    assert report["machine"]["versions"]["torch"]
    assert set(PARTS) <= report.keys()
    assert 0 < report["http"]["alone"]["64"]["share_outside_network"] < 1
    assert report["memory"]["peak_rss_mib"] >= report["memory"]["peak_pss_mib"] > 100
    assert sum(line.startswith("| ") for line in table) > len(PARTS)
