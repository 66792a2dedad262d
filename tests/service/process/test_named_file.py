"""A small file that a setting names is read whole, and nothing that never ends."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from upscaled.process.named_file import MAX_NAMED_BYTES, NamedFileUnusable, read_named_file


def test_a_regular_file_is_read_whole_up_to_the_limit(tmp_path: Path) -> None:
    content = os.urandom(MAX_NAMED_BYTES)
    (tmp_path / "file").write_bytes(content)
    assert read_named_file(tmp_path / "file", takes_pipe=False) == content
    (tmp_path / "file").write_bytes(content + b"x")
    with pytest.raises(NamedFileUnusable, match=f"^is larger than {MAX_NAMED_BYTES} bytes$"):
        read_named_file(tmp_path / "file", takes_pipe=False)


@pytest.mark.parametrize("takes_pipe", [True, False])
@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null"])
def test_a_device_is_refused_at_once(device: str, takes_pipe: bool) -> None:
    with pytest.raises(NamedFileUnusable, match=r"^is no regular file$"):
        read_named_file(Path(device), takes_pipe=takes_pipe)


def test_a_folder_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NamedFileUnusable, match=r"^Is a directory$"):
        read_named_file(tmp_path, takes_pipe=True)
    with pytest.raises(NamedFileUnusable, match=r"^No such file or directory$"):
        read_named_file(tmp_path / "file", takes_pipe=True)


def test_parts_received_from_a_pipe_are_joined(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    program = (
        "import sys, time\nwith open(sys.argv[1], 'wb', buffering=0) as pipe:\n"
        "    for part in (b'one', b'two'):\n        pipe.write(part)\n        time.sleep(0.1)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "pipe")]):
        assert read_named_file(tmp_path / "pipe", takes_pipe=True, wait_s=60) == b"onetwo"


def test_a_pipe_that_nothing_writes_to_is_refused_at_the_time_limit(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(NamedFileUnusable, match=r"^is a pipe whose writer does not end$"):
        read_named_file(tmp_path / "pipe", takes_pipe=True, wait_s=0.05)


def test_a_pipe_whose_writer_does_not_end_is_refused_at_the_time_limit(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(tmp_path / "pipe", os.O_WRONLY)
    try:
        os.write(writer, b"one")
        with pytest.raises(NamedFileUnusable, match=r"^is a pipe whose writer does not end$"):
            read_named_file(tmp_path / "pipe", takes_pipe=True, wait_s=0.05)
    finally:
        os.close(writer)
        os.close(reader)


def test_a_pipe_is_refused_at_once_where_it_is_read_twice(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(NamedFileUnusable, match=r"^is no regular file$"):
        read_named_file(tmp_path / "pipe", takes_pipe=False)
