import os
from pathlib import Path

import pytest

from tests.service.image.samples import picture, save
from upscaled.batch import files
from upscaled.batch.files import (
    CannotWrite,
    NotAnImage,
    OutputFull,
    is_being_written,
    part_of,
    read_source,
    refuse_unreadable,
    write_part,
)
from upscaled.errors import FileSizeTooLarge, InvalidParameter, UnsupportedImageFormat

FORMATS = frozenset({"JPEG", "PNG", "WEBP"})


@pytest.mark.parametrize("is_any", [True, False])
def test_an_image_is_read_whole_whatever_its_name(tmp_path: Path, is_any: bool) -> None:
    path = tmp_path / "image.txt"
    path.write_bytes(save(picture(), "PNG"))
    assert read_source(path, FORMATS, is_any=is_any) == path.read_bytes()


@pytest.mark.parametrize("data", [b"", b"text"])
def test_a_file_that_is_no_image_is_read_only_where_it_is_named(
    tmp_path: Path, data: bytes
) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(data)
    with pytest.raises(NotAnImage):
        read_source(path, FORMATS, is_any=False)
    assert read_source(path, FORMATS, is_any=True) == data


@pytest.mark.parametrize("is_any", [True, False])
@pytest.mark.parametrize(
    ("data", "text"),
    [
        (save(picture(), "GIF"), "GIF is not supported"),
        (b"%PDF-1.7", "PDF is not supported"),
        (save(picture(), "BMP"), "BMP is not enabled (UPSCALED_EXTRA_FORMATS=bmp enables it)"),
        (save(picture(), "TIFF"), "TIFF is not enabled (UPSCALED_EXTRA_FORMATS=tiff enables it)"),
        (
            b"\0\0\0\x18ftypheic" + bytes(12),
            "HEIC is not enabled (UPSCALED_EXTRA_FORMATS=heic enables it)",
        ),
    ],
)
def test_a_format_that_is_not_enabled_is_refused_with_its_setting(
    tmp_path: Path, data: bytes, text: str, is_any: bool
) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(data)
    with pytest.raises(UnsupportedImageFormat) as refusal:
        read_source(path, FORMATS, is_any=is_any)
    assert refusal.value.public_text == text


def test_of_a_huge_file_that_is_no_image_only_the_ends_are_read(tmp_path: Path) -> None:
    path = tmp_path / "disk.raw"
    with open(path, "wb") as file:
        file.truncate(2**42)  # no memory of this machine would hold it
    with pytest.raises(NotAnImage):
        read_source(path, FORMATS, is_any=False)


@pytest.mark.parametrize("excess", [0, 1])
def test_a_file_of_the_largest_size_is_read_and_one_byte_more_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, excess: int
) -> None:
    data = save(picture(), "PNG")
    (tmp_path / "a.png").write_bytes(data)
    monkeypatch.setattr(files, "MAX_SOURCE_BYTES", len(data) - excess)
    if not excess:
        assert read_source(tmp_path / "a.png", FORMATS, is_any=False) == data
        return
    with pytest.raises(FileSizeTooLarge):
        read_source(tmp_path / "a.png", FORMATS, is_any=False)


def test_a_pipe_or_folder_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidParameter, match="is no regular file"):
        read_source(tmp_path / "pipe", FORMATS, is_any=True)
    with pytest.raises(IsADirectoryError):
        read_source(tmp_path, FORMATS, is_any=True)


def test_a_missing_and_an_unreadable_file_have_codes_of_the_contract() -> None:
    gone = refuse_unreadable(FileNotFoundError(2, "No such file or directory"))
    assert (gone.error_code, gone.public_text) == ("not_found", "no such file or directory")
    barred = refuse_unreadable(PermissionError(13, "Permission denied"))
    assert (barred.error_code, barred.public_text) == ("invalid_parameter", "permission denied")


def test_no_part_is_left_of_a_result_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "sub").write_text("a file")
    with pytest.raises(CannotWrite, match=r"cannot be written: (Not a directory|File exists)"):
        write_part(tmp_path / "sub" / "a.jpg", part_of(tmp_path / "sub" / "a.jpg"), b"")
    full = tmp_path / "full.part"
    full.symlink_to("/dev/full")  # the link goes with the part, the device itself must not
    with pytest.raises(OutputFull, match="No space left"):
        write_part(tmp_path / "full", full, b"x" * 100_000)
    assert [path.name for path in tmp_path.iterdir()] == ["sub"]


def test_a_file_that_is_only_read_is_not_being_written(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_text("whole")
    with open(path, "rb"):
        assert not is_being_written(path)
    assert not is_being_written(tmp_path / "absent")


def test_a_device_that_fails_is_no_fault_of_the_caller() -> None:
    failed = refuse_unreadable(OSError(5, "Input/output error"))
    assert (failed.error_code, failed.public_text) == ("internal_error", "input/output error")
