"""Sources in buckets: found as in folders, and read as files are."""

from pathlib import Path, PurePath

import pytest

from tests.buckets import Bucket, FaultyBucket
from tests.service.image.samples import picture, save
from upscaled.batch import bucket_source
from upscaled.batch.bucket_source import BucketObject, S3Url, find_object, list_objects, open_bucket
from upscaled.batch.discovery import Finder, Source
from upscaled.batch.files import BatchAborted, NotAnImage
from upscaled.errors import FileSizeTooLarge, UnsupportedImageFormat

FORMATS = frozenset({"JPEG", "PNG", "WEBP"})
KEYS = ["in/a.jpg", "in/sub/deep/d.png", "in/sub/\u00fc c.png", "in2/x.png"]


@pytest.fixture
def filled(bucket: Bucket) -> Bucket:
    for key in (*KEYS, "in/.hidden/e.png", "in/.f.png", "in/"):
        bucket.put(key, key.encode())
    return bucket


def find(
    bucket: Bucket, *names: str, output: S3Url | Path | None = Path("out"), listed: bool = False
) -> list[Source]:
    urls = [f"s3://{bucket.name}/{name}" for name in names]
    finder = Finder(output, urls if listed else (), bucket.endpoint)
    return list(finder.find(["-"] if listed else urls))


def places(sources: list[Source]) -> list[tuple[str, str]]:
    """(name below the bucket, folder of its result)."""
    return [(str(each.file).split("/", 3)[-1], str(each.folder)) for each in sources]


@pytest.mark.parametrize("prefix", ["in", "in/"])
def test_a_prefix_is_mirrored_without_hidden_names_and_markers(filled: Bucket, prefix: str) -> None:
    assert places(find(filled, prefix)) == [
        ("in/a.jpg", "."), ("in/sub/deep/d.png", "sub/deep"), ("in/sub/\u00fc c.png", "sub"),
    ]  # fmt: skip
    assert places(find(filled, ""))[-1] == ("in2/x.png", "in2"), "the whole bucket"


@pytest.mark.parametrize(
    ("output", "left"),
    [("in/sub", ["in/a.jpg"]), ("in/su", KEYS[:3]), ("in2", KEYS[:3]), ("", KEYS[:3])],
)
def test_the_output_prefix_is_never_read_as_input(
    filled: Bucket, output: str, left: list[str]
) -> None:
    found = find(filled, "in", output=S3Url(filled.name, output))
    assert [name for name, _ in places(found)] == left


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("in/*.jpg", ["a.jpg"]),
        ("in/**/*.png", ["sub/deep/d.png", "sub/\u00fc c.png"]),
        ("in/s?b/[\u00fcd]*", ["sub/\u00fc c.png"]),
        ("*/a.*", ["in/a.jpg"]),
    ],
)
def test_a_pattern_keeps_places_below_its_fixed_part(
    filled: Bucket, pattern: str, names: list[str]
) -> None:
    assert [str(each.folder / each.file.name) for each in find(filled, pattern)] == names


def test_an_object_named_by_itself_is_written_to_the_top_and_is_no_pattern(bucket: Bucket) -> None:
    bucket.put("in/[a]*.png", b"x")
    for is_listed in (False, True):
        (found,) = find(bucket, "in/[a]*.png", listed=is_listed)
        assert (found.folder, found.is_named, found.file.name) == (PurePath(), True, "[a]*.png")


def test_what_finds_nothing_or_has_no_output_is_an_error(filled: Bucket) -> None:
    for name in ("in/none.png", "in/*.webp", "none"):
        (found,) = find(filled, name)
        assert isinstance(found.error, FileNotFoundError)
    for name in ("in/a.jpg", "in"):
        (found,) = find(filled, name, output=None)
        assert isinstance(found.error, IsADirectoryError)
    (found,) = find(Bucket(filled.server, filled.server, "no-such"), "in")
    assert "NoSuchBucket" in str(found.error)


def test_a_listing_that_breaks_off_is_one_error_with_the_prefix_s_name(
    faulty_bucket: FaultyBucket,
) -> None:
    faulty_bucket.fail("cut")
    for name in ("in", "in/*"):
        (found,) = find(faulty_bucket.bucket, name)
        assert str(found.file) == f"s3://{faulty_bucket.bucket.name}/in"
        assert "the connection broke off" in str(found.error)


def read(bucket: Bucket, key: str, *, is_any: bool = False) -> bytes:
    opened = open_bucket(bucket.name, bucket.endpoint)
    found = find_object(opened, S3Url(bucket.name, key))
    assert found is not None
    return found.read(FORMATS, is_any=is_any)


@pytest.mark.parametrize("small_bytes", [0, 2**20])
def test_objects_are_read_and_refused_as_files_are(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, small_bytes: int
) -> None:
    monkeypatch.setattr(bucket_source, "_SMALL_BYTES", small_bytes)
    image = save(picture(), "PNG")
    for key, data in (("a.txt", image), ("b.png", b"text"), ("c.png", b""), ("d.png", b"%PDF-1.7")):
        bucket.put(key, data)
    assert read(bucket, "a.txt") == image
    for key in ("b.png", "c.png"):
        with pytest.raises(NotAnImage):
            read(bucket, key)
    assert read(bucket, "b.png", is_any=True) == b"text"
    with pytest.raises(UnsupportedImageFormat, match="PDF is not supported"):
        read(bucket, "d.png", is_any=True)
    monkeypatch.setattr("upscaled.batch.files.MAX_SOURCE_BYTES", len(image) - 1)
    with pytest.raises(FileSizeTooLarge):
        read(bucket, "a.txt")


def test_of_a_large_object_that_is_no_image_only_the_ends_are_read(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put("disk.raw", bytes(9 * 2**20))
    opened = open_bucket(bucket.name, bucket.endpoint)
    monkeypatch.setattr(type(opened), "read", lambda *_: pytest.fail("it is read whole"))
    (found,) = list_objects(opened, S3Url(bucket.name))
    with pytest.raises(NotAnImage):
        found.read(FORMATS, is_any=False)


def test_an_object_is_whole_at_once_and_another_one_after_a_change(bucket: Bucket) -> None:
    opened = open_bucket(bucket.name, bucket.endpoint)

    def state() -> BucketObject:
        (found,) = list_objects(opened, S3Url(bucket.name))
        return found

    bucket.put("a.png", b"one")
    first = state()
    assert first.is_whole(is_still=False)
    assert state().state() == first.state()
    bucket.put("a.png", b"two")
    assert state().state() != first.state()


def test_a_bucket_without_its_library_is_refused_with_the_way_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("importlib.metadata.distributions", lambda **_: iter(()))
    with pytest.raises(BatchAborted, match=r"a bucket needs obstore: \S+ -m pip install -r"):
        open_bucket("never-opened-before", "")
