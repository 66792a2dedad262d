"""The same claims for a folder and a bucket: which file may be written, and which is kept."""

import hashlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePath
from typing import Protocol

import pytest

from tests.buckets import Bucket
from upscaled.batch.bucket_source import S3Url, open_bucket
from upscaled.batch.journal import Journal, Record
from upscaled.batch.output_bucket import OutputBucket
from upscaled.batch.output_folder import OutputFolder
from upscaled.batch.output_store import (
    Entry,
    ExistingResult,
    Output,
    OutputStore,
    ReservedPath,
    candidate_names,
)
from upscaled.errors import InvalidParameter

SETTINGS = b"f" * 32
A_PNG, A_JPG, OTHER = "/in/a.png", "/in/a.jpg", "/other/a.png"


class Place(Protocol):
    """A place for results, and another program that sees and changes it."""

    @property
    def root(self) -> str: ...
    def open(self, journal: Journal) -> Output: ...
    def read(self, name: str) -> bytes: ...
    def put(self, name: str, data: bytes) -> None: ...
    def delete(self, name: str) -> None: ...
    def names(self) -> list[str]: ...


@dataclass(frozen=True)
class FolderPlace:
    folder: Path

    @property
    def root(self) -> str:
        return str(self.folder)

    def open(self, journal: Journal) -> Output:
        return OutputFolder(self.folder, journal)

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def put(self, name: str, data: bytes) -> None:
        self.folder.mkdir(exist_ok=True)
        (self.folder / name).write_bytes(data)

    def delete(self, name: str) -> None:
        (self.folder / name).unlink()

    def names(self) -> list[str]:
        return sorted(path.name for path in self.folder.rglob("*"))


@dataclass(frozen=True)
class BucketPlace:
    bucket: Bucket

    @property
    def root(self) -> str:
        return self.bucket.url

    def open(self, journal: Journal) -> Output:
        root = S3Url(self.bucket.name, self.bucket.prefix)
        return OutputBucket(root, open_bucket(root.bucket, self.bucket.endpoint), journal)

    def read(self, name: str) -> bytes:
        return self.bucket.get(f"{self.bucket.prefix}/{name}")

    def put(self, name: str, data: bytes) -> None:
        self.bucket.put(f"{self.bucket.prefix}/{name}", data)

    def delete(self, name: str) -> None:
        self.bucket.delete(f"{self.bucket.prefix}/{name}")

    def names(self) -> list[str]:
        return [key.rpartition("/")[2] for key in self.bucket.list_keys()]


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "folder":
        return FolderPlace(tmp_path / "out")
    return BucketPlace(request.getfixturevalue("bucket"))


@pytest.fixture
def store(place: Place, journal: Journal) -> OutputStore:
    return OutputStore(place.open(journal), is_overwriting=False)


def content(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def take(
    store: OutputStore, source: str, text: str, settings: bytes = SETTINGS
) -> ReservedPath | ExistingResult:
    names = candidate_names(PurePath(source).name, 4, "jpg")
    return store.reserve(source, content(text), settings, map(PurePath, names))


def fill(store: OutputStore, source: str, text: str, settings: bytes = SETTINGS) -> str:
    """The name of the result."""
    reservation = take(store, source, text, settings)
    assert isinstance(reservation, ReservedPath)
    result = b"result of " + text.encode() + settings
    digest = hashlib.sha256(result).digest()
    record = Record(content(text), settings, digest, len(result), 0, 3, 4, "model")
    store.commit(reservation, record, result)
    return reservation.path.name


def test_sources_whose_results_would_have_one_name_get_names_of_their_own(
    store: OutputStore,
) -> None:
    targets = [fill(store, source, source) for source in (A_PNG, A_JPG, OTHER)]
    assert targets == ["a-x4.jpg", "a.jpg-x4.jpg", "a.png-x4.jpg"]
    for source in (A_PNG, A_JPG, OTHER):
        assert isinstance(take(store, source, source), ExistingResult), "and keep them"


def test_a_path_is_reserved_from_the_moment_work_begins(store: OutputStore, place: Place) -> None:
    first, second = take(store, A_PNG, "one"), take(store, A_JPG, "two")
    names = [Path(reservation.target).name for reservation in (first, second)]
    assert names == ["a-x4.jpg", "a.jpg-x4.jpg"]
    again = take(store, A_PNG, "one")
    assert again == ExistingResult(f"{place.root}/a-x4.jpg", None), "named twice"


def test_a_source_keeps_its_name_while_another_one_checks_it(
    store: OutputStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store, A_PNG, "one")
    is_looking, may_go_on = threading.Event(), threading.Event()
    look = store.output.look

    def look_slowly(path: PurePath, source: str) -> Entry:
        if source == A_JPG and path.name == "a-x4.jpg":
            is_looking.set()
            assert may_go_on.wait(60)
        return look(path, source)

    monkeypatch.setattr(store.output, "look", look_slowly)
    with ThreadPoolExecutor(2) as threads:
        other = threads.submit(take, store, A_JPG, "two")
        assert is_looking.wait(60)
        own = threads.submit(take, store, A_PNG, "one")
        assert not wait([own], timeout=0.2).done
        may_go_on.set()
    assert isinstance(own.result(), ExistingResult)
    assert isinstance(other.result(), ReservedPath)


def test_an_existing_result_is_found_by_content_and_settings_not_by_name(
    store: OutputStore, place: Place
) -> None:
    name = fill(store, A_PNG, "one")
    assert isinstance(found := take(store, OTHER, "one"), ExistingResult)
    assert found.target == f"{place.root}/{name}"
    assert found.record is not None
    assert (found.record.width_px, found.record.height_px, found.record.model) == (3, 4, "model")


@pytest.mark.parametrize(("text", "settings"), [("two", SETTINGS), ("one", b"g" * 32)])
def test_another_content_or_other_settings_replace_the_source_s_own_result(
    store: OutputStore, place: Place, text: str, settings: bytes
) -> None:
    name = fill(store, A_PNG, "one")
    assert fill(store, A_PNG, text, settings) == name
    assert place.read(name) == b"result of " + text.encode() + settings


def test_a_missing_result_is_made_again(store: OutputStore, place: Place) -> None:
    name = fill(store, A_PNG, "one")
    place.delete(name)
    assert fill(store, A_PNG, "one") == name


@pytest.mark.parametrize("is_ours", [True, False], ids=["changed since", "not ours"])
def test_a_foreign_file_is_replaced_only_with_overwrite(
    place: Place, journal: Journal, is_ours: bool
) -> None:
    if is_ours:
        fill(OutputStore(place.open(journal), is_overwriting=False), A_PNG, "one")
    place.put("a-x4.jpg", b"precious")
    with pytest.raises(InvalidParameter, match="--overwrite replaces it"):
        take(OutputStore(place.open(journal), is_overwriting=False), A_PNG, "one")
    assert place.read("a-x4.jpg") == b"precious"
    overwriting = OutputStore(place.open(journal), is_overwriting=True)
    assert fill(overwriting, A_PNG, "one") == "a-x4.jpg"
    assert place.read("a-x4.jpg") != b"precious"


def test_the_result_of_a_moved_source_is_found_to_be_copied(
    store: OutputStore, place: Place
) -> None:
    name = fill(store, A_PNG, "one")
    alike = store.output.find_identical(content("one"), SETTINGS)
    assert alike is not None
    assert alike[1] == place.read(name)
    assert store.output.find_identical(content("one"), b"g" * 32) is None
    place.put(name, b"changed")
    assert store.output.find_identical(content("one"), SETTINGS) is None


def test_the_store_recognises_its_own_results(store: OutputStore, place: Place) -> None:
    name = fill(store, A_PNG, "one")
    place.put("foreign.jpg", b"x")
    assert store.output.holds(f"{place.root}/{name}")
    for other in (f"{place.root}/b-x4.jpg", f"{place.root}/foreign.jpg", f"/else/{name}"):
        assert not store.output.holds(other)


def test_no_file_is_left_of_a_released_reservation(store: OutputStore, place: Place) -> None:
    for _ in range(2):
        reservation = take(store, A_PNG, "one")
        assert isinstance(reservation, ReservedPath), "and the path is free again"
        store.release(reservation)
    assert place.names() == []
    assert fill(store, A_JPG, "two") == "a-x4.jpg"


def test_a_suffix_replaces_the_scale_in_the_name() -> None:
    names = list(islice(candidate_names("a.png", 4, "webp", "-large"), 2))
    assert names == ["a-large.webp", "a.png-large.webp"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.png", ["a-x4.jpg", "a.png-x4.jpg", "a.png-2-x4.jpg", "a.png-3-x4.jpg"]),
        ("plain", ["plain-x4.jpg", "plain-2-x4.jpg"]),
        ("a.b.png", ["a.b-x4.jpg", "a.b.png-x4.jpg"]),
        (".png", [".png-x4.jpg", ".png-2-x4.jpg"]),
    ],
)
def test_a_second_source_of_one_name_has_a_longer_name(name: str, expected: list[str]) -> None:
    assert list(islice(candidate_names(name, 4, "jpg"), len(expected))) == expected


@pytest.mark.parametrize("letter", ["x", "ä", "漢", "\U0001f642", "\udcff", os.fsdecode(b"\x80")])
@pytest.mark.parametrize("length", [240, 247, 248, 249, 250, 251])
def test_no_name_is_longer_than_a_name_may_be(letter: str, length: int) -> None:
    """It is cut between characters, and names that differ only behind the cut are kept apart."""
    bytes_each = len(os.fsencode(letter))
    stem = letter * (length // bytes_each)
    sources = [f"{stem}.png", f"{stem[:-1]}y.png", f"{stem}.jpg"]
    results = [list(islice(candidate_names(source, 4, "jpg"), 4)) for source in sources]

    for names in results:
        assert len(set(names)) == 4
        for name in names:
            assert len(os.fsencode(name)) <= 255
            assert name.endswith("-x4.jpg")
            assert letter.encode(errors="ignore") == b"" or name.encode(), "no letter is cut in two"
    assert results[0][0] != results[1][0]
    assert not set(results[0][1:]) & set(results[2][1:])
    if length <= 248:
        assert results[0][0] == f"{stem}-x4.jpg"
