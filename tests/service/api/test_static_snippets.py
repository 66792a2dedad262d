"""The page's programs against a service that refuses each at first: they wait for `Retry-After`."""

import json
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import pytest

from tests.service.api.pictures import picture, size_of
from tests.service.api.serving import MakeService
from upscaled.errors import RateLimitExceeded

SNIPPETS = (
    Path(__file__).resolve().parents[3] / "service" / "upscaled" / "api" / "static" / "snippets.js"
)
RUNNERS = {"curl": ("bash", "sh"), "python": (sys.executable, "py"), "javascript": ("node", "mjs")}
RETRY_AFTER_S = 2
FILE_NAME = 'a "photo".png'


def write_programs(url: str, keys: dict[str, str], folder: Path) -> dict[str, Path]:
    """A file with each program, as the page's own code words it."""
    (folder / "snippets.mjs").write_text(SNIPPETS.read_text())
    (folder / "write.mjs").write_text(
        'import { WRITERS } from "./snippets.mjs";\n'
        f"const [url, fileName, keys] = {json.dumps([url, FILE_NAME, keys])};\n"
        "const asked = (name) => ({ url, fileName, key: keys[name], resultName: name, scale: 2,"
        " choices: { 'X-Upscale-Model': 'upscaled-x4' } });\n"
        "const write = ([name, program]) => [name, program(asked(name))];\n"
        "const programs = Object.fromEntries(Object.entries(WRITERS).map(write));\n"
        "console.log(JSON.stringify(programs));\n"
    )
    done = subprocess.run(["node", "write.mjs"], cwd=folder, capture_output=True, check=True)
    programs = {}
    for language, text in json.loads(done.stdout).items():
        programs[language] = folder / f"program.{RUNNERS[language][1]}"
        programs[language].write_text(text)
    return programs


@pytest.mark.skipif(shutil.which("node") is None, reason="the page's code runs in node")
def test_every_program_of_the_page_waits_for_retry_after_and_names_its_model(
    make_service: MakeService, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    service = make_service()
    taken_at_s: dict[int, list[float]] = defaultdict(list)

    def refuse_once(key_id: int, *_: object) -> None:
        taken_at_s[key_id].append(time.monotonic())
        if len(taken_at_s[key_id]) == 1:
            raise RateLimitExceeded(RETRY_AFTER_S)

    monkeypatch.setattr(service.state.rate, "take", refuse_once)
    folder = tmp_path / "programs"
    folder.mkdir()
    (folder / FILE_NAME).write_bytes(picture())
    keys = {language: service.state.keys.create(language) for language in RUNNERS}
    running = {
        language: subprocess.Popen(
            [RUNNERS[language][0], str(program)],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for language, program in write_programs(f"{service.url}/v1/upscale", keys, folder).items()
    }
    assert set(running) == set(RUNNERS)
    for language, program in running.items():
        output, _ = program.communicate(timeout=60)
        assert program.returncode == 0, (language, output)
        assert size_of((folder / language).read_bytes()) == (160, 128)
    waits_s = [after - before for before, after in taken_at_s.values()]
    assert len(waits_s) == len(RUNNERS)
    assert [each.model for each in service.executor.requests] == ["upscaled-x4"] * len(RUNNERS)
    assert min(waits_s) > RETRY_AFTER_S - 0.1
