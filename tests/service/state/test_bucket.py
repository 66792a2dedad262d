"""A bucket for batches: objects with their notes, and errors that are those of files."""

import errno
import os
from collections.abc import Callable

import pytest

from tests.buckets import Bucket as MotoBucket
from tests.buckets import Fault, FaultyBucket, answers_within

pytest.importorskip("obstore", reason="obstore is not installed")

from upscaled.state.bucket import Bucket


@pytest.fixture
def opened(bucket: MotoBucket) -> Bucket:
    return Bucket(bucket.name, bucket.endpoint)


@pytest.mark.parametrize(
    "key", ["a.png", "in/a b/\u00fc \u6f22.png", "x#1?.png", "p%20q.png", "[a]*+&='\".png", "~/.x"]
)
def test_an_object_is_read_back_under_any_name_with_its_metadata(
    opened: Bucket, bucket: MotoBucket, key: str
) -> None:
    data = os.urandom(30_000)
    opened.put(key, data, "image/png", '{"a": "b"}')
    found = opened.find(key)
    assert found is not None
    assert (found.key, found.size_bytes, found.note) == (key, 30_000, '{"a": "b"}')
    assert opened.read(key, 30_000) == data
    assert opened.read_ends(key, 30_000, 10, 20) == data[:10] + data[-20:]
    assert [(each.key, each.e_tag) for each in opened.list("")] == [(key, found.e_tag)]
    assert bucket.get(key) == data


@pytest.mark.slow
def test_a_listing_has_all_pages_and_only_what_is_below_its_prefix(
    opened: Bucket, bucket: MotoBucket
) -> None:
    keys = [f"in/{number:04}.png" for number in range(1101)]
    for key in (*keys, "in2/a.png", "in.png"):
        bucket.put(key, b"x")
    assert [found.key for found in opened.list("in")] == keys
    assert list(opened.list("none")) == []


def test_an_object_is_put_only_over_the_one_that_was_seen(opened: Bucket) -> None:
    opened.put("a.png", b"first", "image/png", "1")
    first = opened.find("a.png")
    assert first is not None
    with pytest.raises(FileExistsError, match="another program wrote it meanwhile"):
        opened.put("a.png", b"other", "image/png", "2")
    opened.put("a.png", b"second", "image/png", "2", replaced_e_tag=first.e_tag)
    with pytest.raises(FileExistsError):
        opened.put("a.png", b"third", "image/png", "3", replaced_e_tag=first.e_tag)
    with pytest.raises(FileExistsError):
        opened.put("gone.png", b"third", "image/png", "3", replaced_e_tag=first.e_tag)
    assert opened.read("a.png", 6) == b"second"


@pytest.mark.parametrize("fault", ["busy", "cut"])
def test_an_object_is_put_although_a_request_fails(
    faulty_bucket: FaultyBucket, fault: Fault
) -> None:
    bucket = faulty_bucket.bucket
    faulty_bucket.fail_next(fault)
    Bucket(bucket.name, bucket.endpoint).put("a.png", b"x" * 1000, "image/png", "1")
    assert faulty_bucket.proxy.faults == []
    assert bucket.get("a.png") == b"x" * 1000


def test_an_object_is_read_whole_although_its_connection_breaks(
    faulty_bucket: FaultyBucket,
) -> None:
    data = os.urandom(3_500_000)
    faulty_bucket.bucket.put("a.png", data)
    faulty_bucket.fail_next("cut while reading", "cut while reading")
    opened = Bucket(faulty_bucket.bucket.name, faulty_bucket.bucket.endpoint)
    assert opened.read("a.png", len(data)) == data
    assert faulty_bucket.proxy.faults == []


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("silent", "no answer in time"),
        ("busy", "the bucket answered 503 Service Unavailable"),
        ("cut", "the connection broke off"),
    ],
)
def test_a_bucket_that_fails_is_an_error_of_every_call(
    faulty_bucket: FaultyBucket, fault: Fault, reason: str
) -> None:
    faulty_bucket.bucket.put("a.png", b"x")
    with answers_within(0.4 if fault == "silent" else 10):
        opened = Bucket(faulty_bucket.bucket.name, faulty_bucket.bucket.endpoint)
        faulty_bucket.fail(fault)
        calls: tuple[Callable[[], object], ...] = (
            lambda: list(opened.list("")),
            lambda: opened.find("a.png"),
            lambda: opened.read("a.png", 1),
            lambda: opened.read_ends("a.png", 1, 1, 1),
            lambda: opened.put("b.png", b"x", "image/png", ""),
            lambda: opened.try_out("trial"),
        )
        for call in calls:
            with pytest.raises(OSError, match=reason) as failed:
                call()
            assert failed.value.errno == errno.EIO
    faulty_bucket.fail(None)
    assert opened.read("a.png", 1) == b"x"


def test_what_is_missing_or_cannot_be_listed_is_named(opened: Bucket, bucket: MotoBucket) -> None:
    assert opened.find("a.png") is None
    with pytest.raises(FileNotFoundError, match="404 Not Found NoSuchKey"):
        opened.read("a.png", 1)
    with pytest.raises(OSError, match="404 Not Found NoSuchBucket"):
        Bucket("no-such", bucket.endpoint).try_out("trial")
    with pytest.raises(OSError, match="no connection"):
        Bucket(bucket.name, "http://127.0.0.1:1").find("a.png")
    opened.try_out("trial")
    assert bucket.list_keys() == []
    bucket.put("in/a//b.png", b"x")
    with pytest.raises(OSError, match=r"a name has an empty part.*: in/a//b\.png"):
        list(opened.list("in"))
