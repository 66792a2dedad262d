import os
import tarfile
from pathlib import Path

import pytest

from scripts.bundling.archive import TIME_S, pack


def _make(root: Path, names: list[str], umask: int, time_s: int) -> Path:
    before = os.umask(umask)
    try:
        folder = root / "upscaled"
        (folder / "wheels").mkdir(parents=True)
        for name in names:
            (folder / name).write_text(name)
            os.utime(folder / name, (time_s, time_s))
        (folder / "install").chmod(0o700)
    finally:
        os.umask(before)
    return folder


def test_the_same_files_give_the_same_archive_for_every_user(tmp_path: Path) -> None:
    names = ["install", "wheels/b.whl", "wheels/a.whl"]
    one = _make(tmp_path / "one", names, 0o022, 1)
    other = _make(tmp_path / "other", names[::-1], 0o077, 10**9)
    pack(one, tmp_path / "one.tar")
    pack(other, tmp_path / "other.tar")
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "other.tar").read_bytes()


def test_it_unpacks_into_one_folder_that_everybody_can_read(tmp_path: Path) -> None:
    pack(_make(tmp_path, ["install", "wheels/a.whl"], 0o077, 1), tmp_path / "archive.tar")
    with tarfile.open(tmp_path / "archive.tar") as archive:
        entries = {entry.name: (entry.mode, entry.uid, entry.mtime) for entry in archive}
    assert entries == {
        "upscaled": (0o755, 0, TIME_S),
        "upscaled/install": (0o755, 0, TIME_S),
        "upscaled/wheels": (0o755, 0, TIME_S),
        "upscaled/wheels/a.whl": (0o644, 0, TIME_S),
    }


def test_the_date_can_be_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    pack(_make(tmp_path, ["install"], 0o022, 1), tmp_path / "archive.tar")
    with tarfile.open(tmp_path / "archive.tar") as archive:
        assert {entry.mtime for entry in archive} == {1_700_000_000}


def test_a_half_made_archive_leaves_nothing(tmp_path: Path) -> None:
    folder = _make(tmp_path, ["install"], 0o022, 1)
    with pytest.raises(OSError, match="No such file"):
        pack(folder, tmp_path / "nowhere" / "archive.tar")
    (folder / "wheels" / "gone").symlink_to("nowhere")
    pack(folder, tmp_path / "archive.tar")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archive.tar", "upscaled"]
