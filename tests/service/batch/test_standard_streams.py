import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import PurePath

import pytest

from tests.service.batch.test_output_store import content
from tests.service.image.samples import picture, save
from upscaled.batch.files import NotAnImage, OutputFull
from upscaled.batch.journal import Record
from upscaled.batch.output_store import OutputStore, ReservedPath
from upscaled.batch.standard_streams import STREAM, InputPicture, OutputStream, ReaderGone
from upscaled.errors import UnsupportedImageFormat
from upscaled.upscale.concurrency import Cancelled

PNG = save(picture(), "PNG")
Pipe = tuple[int, int]


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """(the end to read, the end to write)"""
    ends = os.pipe()
    yield ends
    for end in ends:
        with suppress(OSError):  # closed by the test
            os.close(end)


def read(pipe: Pipe, data: bytes, *, is_any: bool = True) -> bytes:
    os.write(pipe[1], data)
    os.close(pipe[1])
    return InputPicture(pipe[0], threading.Event()).read({"PNG"}, is_any=is_any)


def reserve(store: OutputStore) -> ReservedPath:
    reservation = store.reserve("s", content("one"), b"f" * 32, iter([PurePath("s-x2.jpg")]))
    assert isinstance(reservation, ReservedPath)
    assert reservation.target == STREAM
    return reservation


def record_of(data: bytes) -> Record:
    digest = b"0" * 32
    return Record(digest, digest, digest, len(data), 0, width_px=2, height_px=2, model="m")


def test_a_picture_is_read_to_its_end_in_pieces_of_any_size(pipe: Pipe) -> None:
    first, second = PNG[:100], PNG[100:]
    os.write(pipe[1], first)

    def finish() -> None:
        os.write(pipe[1], second)
        os.close(pipe[1])

    writer = threading.Timer(0.05, finish)
    writer.start()
    source = InputPicture(pipe[0], threading.Event())
    assert source.read({"PNG"}, is_any=True) == PNG
    writer.join()
    assert (str(source), source.name, source.is_whole(is_still=False)) == ("-", "stdin", True)
    assert source.state() == pipe[0]


def test_a_format_that_is_not_enabled_is_refused(pipe: Pipe) -> None:
    with pytest.raises(UnsupportedImageFormat, match="JPEG is not supported"):
        read(pipe, save(picture(), "JPEG"))


def test_bytes_that_are_no_picture_are_refused(pipe: Pipe) -> None:
    with pytest.raises(NotAnImage):
        read(pipe, b"a.png\nb.png\n", is_any=False)


def test_a_writer_that_does_not_end_is_left_when_the_batch_is_over(pipe: Pipe) -> None:
    is_over = threading.Event()
    is_over.set()
    os.write(pipe[1], PNG)
    with pytest.raises(Cancelled):
        InputPicture(pipe[0], is_over).read({"PNG"}, is_any=True)


@pytest.mark.parametrize("is_blocking", [True, False])
def test_the_stream_has_the_whole_result_and_nothing_else(pipe: Pipe, is_blocking: bool) -> None:
    reading, writing = pipe
    os.set_blocking(writing, is_blocking)
    data = os.urandom(1 << 20)  # more than a pipe holds
    parts: list[bytes] = []

    def drain() -> None:
        with os.fdopen(os.dup(reading), "rb") as file:
            parts.append(file.read())

    reader = threading.Thread(target=drain)
    reader.start()
    stream = OutputStream(writing)
    stream.take_over()
    with OutputStore(stream, is_overwriting=False) as store:
        os.write(writing, b"a library's message")
        assert store.commit(reserve(store), record_of(data), data) == record_of(data)
    os.close(stream._fd)
    reader.join()
    assert parts == [data]


def test_results_written_to_a_stream_before_are_not_recorded(pipe: Pipe) -> None:
    store = OutputStore(OutputStream(pipe[1]), is_overwriting=False)
    for _ in range(2):
        store.commit(reserve(store), record_of(b"x"), b"x")
    store.release(reserve(store))
    assert os.read(pipe[0], 9) == b"xx"
    assert store.output.find_identical(content("one"), b"f" * 32) is None
    assert not store.output.holds("s")


def test_a_closed_output_raises_an_error_of_its_own(pipe: Pipe) -> None:
    os.close(pipe[0])
    store = OutputStore(OutputStream(pipe[1]), is_overwriting=False)
    with pytest.raises(ReaderGone) as error:
        store.commit(reserve(store), record_of(b"x"), b"x")
    assert error.value.exit_status == 141, "as of a program that SIGPIPE ends"


def test_after_a_full_device_no_further_result_is_written() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        store = OutputStore(OutputStream(full), is_overwriting=False)
        with pytest.raises(OutputFull, match="standard output: No space left on device"):
            store.commit(reserve(store), record_of(b"x"), b"x")
    finally:
        os.close(full)
