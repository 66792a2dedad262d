"""The ZIP archives that the page writes, read by Python's own reader and by unzip."""

import json
import os
import shutil
import subprocess
import zipfile
from datetime import datetime
from importlib.resources import files
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")

SCRIPT = """
import { writeFileSync, readFileSync } from "node:fs";
import { makeZip } from "./zip.mjs";
const entries = JSON.parse(readFileSync("entries.json"));
const files = entries.map(({ name, file }) => ({ name, blob: new Blob([readFileSync(file)]) }));
const archive = await makeZip(files, new Date(2024, 1, 29, 23, 59, 58));
writeFileSync("archive.zip", Buffer.from(await archive.arrayBuffer()));
"""


def make_zip(folder: Path, entries: list[tuple[str, bytes]]) -> Path:
    source = files("upscaled.api") / "static" / "zip.js"
    (folder / "zip.mjs").write_text(source.read_text("utf-8"))
    (folder / "script.mjs").write_text(SCRIPT)
    listed = []
    for number, (name, data) in enumerate(entries):
        (folder / str(number)).write_bytes(data)
        listed.append({"name": name, "file": str(number)})
    (folder / "entries.json").write_text(json.dumps(listed))
    subprocess.run(["node", "script.mjs"], cwd=folder, check=True, timeout=60)
    return folder / "archive.zip"


def test_an_archive_gives_back_every_byte_under_its_name(tmp_path: Path) -> None:
    entries = [
        ("one.jpg", os.urandom(100_000)),
        ("empty.png", b""),
        ("ferie/été 猫.webp", bytes(range(256)) * 1000),
    ]
    with zipfile.ZipFile(make_zip(tmp_path, entries)) as archive:
        assert archive.testzip() is None
        assert [(info.filename, archive.read(info)) for info in archive.infolist()] == entries
        for info in archive.infolist():
            assert info.compress_type == zipfile.ZIP_STORED
            assert datetime(*info.date_time) == datetime(2024, 2, 29, 23, 59, 58)


def test_equal_names_get_numbers(tmp_path: Path) -> None:
    names = ["a.jpg", "A.jpg", "a.jpg", "b/a.jpg", "x.y/none", "x.y/none", "a (2).jpg"]
    with zipfile.ZipFile(make_zip(tmp_path, [(name, b"x") for name in names])) as archive:
        assert archive.namelist() == [
            *("a.jpg", "A (2).jpg", "a (3).jpg", "b/a.jpg"),
            *("x.y/none", "x.y/none (2)", "a (2) (2).jpg"),
        ]


def test_a_name_with_backslashes_leads_nowhere(tmp_path: Path) -> None:
    entries = [("..\\..\\a.jpg", b"x"), ("b/.._.._a.jpg", b"y"), (".._.._A.jpg", b"z")]
    with zipfile.ZipFile(make_zip(tmp_path, entries)) as archive:
        names = [".._.._a.jpg", "b/.._.._a.jpg", ".._.._A (2).jpg"]
        assert [info.orig_filename for info in archive.infolist()] == names


def test_an_archive_of_nothing_is_one(tmp_path: Path) -> None:
    with zipfile.ZipFile(make_zip(tmp_path, [])) as archive:
        assert archive.namelist() == []


@pytest.mark.slow
def test_more_files_than_the_format_counts_are_refused_and_none_is_read(tmp_path: Path) -> None:
    source = files("upscaled.api") / "static" / "zip.js"
    (tmp_path / "zip.mjs").write_text(source.read_text("utf-8"))
    (tmp_path / "script.mjs").write_text(
        'import { makeZip } from "./zip.mjs";\n'
        "let read = 0;\n"
        "const reader = { read: async () => { read++; return { done: true }; } };\n"
        "const blob = { size: 0, stream: () => ({ getReader: () => reader }) };\n"
        "for (const length of [65_535, 65_534]) {\n"
        "  const files = Array.from({ length }, (_, at) => ({ name: String(at), blob }));\n"
        "  const made = await makeZip(files).then(() => 'made', (error) => error.name);\n"
        "  console.log(length, made, read);\n"
        "}\n"
    )
    done = subprocess.run(
        ["node", "script.mjs"], cwd=tmp_path, check=True, timeout=120, capture_output=True
    )
    assert done.stdout.decode().splitlines() == ["65535 RangeError 0", "65534 made 65534"]
