"""What a model names is read and written below one folder, and nowhere else."""

import errno
import os
from pathlib import Path

import pytest

pytest.importorskip("mcp", reason="the SDK of the extra `mcp` is not installed")

from mcp.server.mcpserver.exceptions import ToolError

from upscaled.mcp.root import RootFolder

LIMIT_BYTES = 1000
OUTSIDE = "is not there, or not below"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """photo.jpg and an empty folder `in`; beside the folder lie secret.jpg and a folder `other`."""
    folder = tmp_path / "root"
    (folder / "in").mkdir(parents=True)
    (folder / "photo.jpg").write_bytes(b"photo")
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    (tmp_path / "other").mkdir()
    return folder


@pytest.fixture
def root(folder: Path) -> RootFolder:
    return RootFolder(folder, LIMIT_BYTES)


def test_a_file_below_it_is_read_by_either_kind_of_path(root: RootFolder, folder: Path) -> None:
    for path in ("photo.jpg", "in/../photo.jpg", str(folder / "photo.jpg")):
        picture = root.read(path)
        assert (picture.path, picture.data) == (folder / "photo.jpg", b"photo")


@pytest.mark.parametrize(
    "path", ["../secret.jpg", "in/../../secret.jpg", "/etc/passwd", "nothing.jpg", "a\0b", ".."]
)
def test_a_path_that_leads_out_of_it_is_answered_as_one_that_is_not_there(
    root: RootFolder, path: str
) -> None:
    with pytest.raises(ToolError, match=OUTSIDE):
        root.read(path)


def test_a_folder_whose_name_begins_like_its_own_is_outside(
    root: RootFolder, tmp_path: Path
) -> None:
    (tmp_path / "root-of-others").mkdir()
    with pytest.raises(ToolError, match=OUTSIDE):
        root.find_folder("../root-of-others")


def test_a_link_that_leads_out_of_it_is_refused(
    root: RootFolder, folder: Path, tmp_path: Path
) -> None:
    (folder / "file.jpg").symlink_to(tmp_path / "secret.jpg")
    (folder / "folder").symlink_to(tmp_path)
    (folder / "loop").symlink_to("loop")
    for path in ("file.jpg", "folder/secret.jpg", "loop"):
        with pytest.raises(ToolError, match=OUTSIDE):
            root.read(path)
    with pytest.raises(ToolError, match=OUTSIDE):
        root.find_folder("folder/other")


def test_a_link_within_it_is_followed(root: RootFolder, folder: Path) -> None:
    (folder / "in" / "link.jpg").symlink_to("../photo.jpg")
    assert root.read("in/link.jpg").path == folder / "photo.jpg"


def test_the_root_itself_may_be_a_link(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    root = RootFolder(tmp_path / "link", LIMIT_BYTES)
    assert root.read("photo.jpg").path == folder / "photo.jpg"
    assert root.read(str(tmp_path / "link" / "photo.jpg")).data == b"photo"


def test_a_folder_that_becomes_a_link_is_not_written_through(
    root: RootFolder, folder: Path, tmp_path: Path
) -> None:
    target = root.find_folder("in")
    (folder / "in").rmdir()
    (folder / "in").symlink_to(tmp_path / "other")
    with pytest.raises(ToolError, match=r"Not a directory|Too many levels"):
        root.write(target, "photo-x4", ".jpg", b"large")
    assert list((tmp_path / "other").iterdir()) == []


def test_a_file_that_becomes_a_link_while_it_is_opened_is_not_read(
    root: RootFolder, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_open = os.open

    def swap_and_open(path: str, flags: int, *more: int, dir_fd: int | None = None) -> int:
        if path == "photo.jpg":
            (folder / "photo.jpg").unlink()
            (folder / "photo.jpg").symlink_to(tmp_path / "secret.jpg")
        return real_open(path, flags, *more, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", swap_and_open)
    with pytest.raises(ToolError, match="Too many levels"):
        root.read("photo.jpg")


def test_only_regular_files_are_read(root: RootFolder, folder: Path) -> None:
    os.mkfifo(folder / "pipe")  # no writer: an open that waits would never end
    for path in ("pipe", "in"):
        with pytest.raises(ToolError, match="is no regular file"):
            root.read(path)


@pytest.mark.parametrize("path", [".", "", "in/.."])
def test_the_folder_itself_is_no_file(root: RootFolder, path: str) -> None:
    with pytest.raises(ToolError, match="is no regular file"):
        root.read(path)


@pytest.mark.parametrize(
    ("size_bytes", "is_accepted"), [(LIMIT_BYTES, True), (LIMIT_BYTES + 1, False)]
)
def test_a_file_may_have_so_many_bytes(
    root: RootFolder, folder: Path, size_bytes: int, is_accepted: bool
) -> None:
    (folder / "photo.jpg").write_bytes(bytes(size_bytes))
    if is_accepted:
        assert len(root.read("photo.jpg").data) == size_bytes
        return
    with pytest.raises(ToolError, match="is larger than 1000 bytes"):
        root.read("photo.jpg")


def test_no_file_is_ever_replaced(root: RootFolder, folder: Path) -> None:
    names = [root.write(folder, "photo", ".jpg", data).name for data in (b"1", b"2")]
    assert names == ["photo-2.jpg", "photo-3.jpg"]
    assert (folder / "photo.jpg").read_bytes() == b"photo"
    assert [(folder / name).read_bytes() for name in names] == [b"1", b"2"]
    assert sorted(os.listdir(folder)) == sorted(["in", "photo.jpg", *names])


def test_a_link_at_the_name_of_a_result_is_not_written_through(
    root: RootFolder, folder: Path, tmp_path: Path
) -> None:
    (folder / "in" / "photo.jpg").symlink_to(tmp_path / "made.jpg")
    assert root.write(root.find_folder("in"), "photo", ".jpg", b"1").name == "photo-2.jpg"
    assert not (tmp_path / "made.jpg").exists()


def test_no_part_is_left_of_a_file_that_cannot_be_written(root: RootFolder, folder: Path) -> None:
    with pytest.raises(ToolError, match="File name too long"):
        root.write(folder / "in", "a" * 300, ".jpg", b"1")
    assert list((folder / "in").iterdir()) == []


def test_a_name_that_was_reserved_is_given_up_where_the_file_cannot_get_it(
    root: RootFolder, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(ToolError, match="Input/output error"):
        root.write(folder / "in", "photo", ".jpg", b"1")
    assert list((folder / "in").iterdir()) == []


def test_a_folder_for_results_is_one(root: RootFolder) -> None:
    with pytest.raises(ToolError, match=r"photo\.jpg is no folder"):
        root.find_folder("photo.jpg")


@pytest.mark.parametrize("name", ["nothing", "photo.jpg"])
def test_the_root_must_be_a_folder(folder: Path, name: str) -> None:
    with pytest.raises(OSError, match=r"No such file|Not a directory"):
        RootFolder(folder / name, LIMIT_BYTES)
