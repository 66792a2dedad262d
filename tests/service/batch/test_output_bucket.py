"""Results in a bucket, where no journal lies beside them and other programs write too."""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import PurePath

import pytest

from tests.buckets import Bucket, FaultyBucket
from tests.service.batch.test_output_store import A_PNG, SETTINGS, content, fill, take
from upscaled.batch.bucket_source import open_bucket
from upscaled.batch.files import CannotWrite
from upscaled.batch.journal import Journal, Record
from upscaled.batch.output_bucket import OutputBucket
from upscaled.batch.output_store import ExistingResult, OutputStore, ReservedPath
from upscaled.batch.s3_url import S3Url
from upscaled.errors import InvalidParameter

RESULT = b"result"
RECORD = Record(content("one"), SETTINGS, hashlib.sha256(RESULT).digest(), 6, 0, 3, 4, "m")


@pytest.fixture
def journal() -> Iterator[Journal]:
    with Journal(None) as journal:
        yield journal


def open_store(bucket: Bucket, journal: Journal, *, is_overwriting: bool = False) -> OutputStore:
    client = open_bucket(bucket.name, bucket.endpoint)
    output = OutputBucket(S3Url(bucket.name, bucket.prefix), client, journal)
    return OutputStore(output, is_overwriting=is_overwriting)


def test_another_machine_knows_what_is_done_by_the_objects_alone(bucket: Bucket) -> None:
    for is_first in (True, False):
        with Journal(None) as journal, open_store(bucket, journal) as store:
            if is_first:
                assert fill(store, A_PNG, "one") == "a-x4.jpg"
            else:
                assert isinstance(take(store, A_PNG, "one"), ExistingResult)
                assert fill(store, A_PNG, "two") == "a-x4.jpg", "its own source's, so replaced"


def test_an_object_has_its_media_type_and_no_name_of_its_source(
    bucket: Bucket, journal: Journal
) -> None:
    fill(open_store(bucket, journal), A_PNG, "one")
    headers = bucket.head("results/a-x4.jpg").headers
    assert headers["Content-Type"] == "image/jpeg"
    assert set(json.loads(headers["x-amz-meta-upscaled"])) == {
        "format", "source", "source_sha256", "fingerprint", "sha256", "px", "model",
    }  # fmt: skip
    assert "a.png" not in headers["x-amz-meta-upscaled"]


@pytest.mark.parametrize("is_overwriting", [False, True])
def test_what_another_program_writes_meanwhile_is_never_replaced(
    bucket: Bucket, journal: Journal, is_overwriting: bool
) -> None:
    store = open_store(bucket, journal, is_overwriting=is_overwriting)
    for before in ((), (b"seen",)) if is_overwriting else ((),):
        for data in before:
            bucket.put("results/a-x4.jpg", data)
        reservation = take(store, A_PNG, "one")
        assert isinstance(reservation, ReservedPath)
        bucket.put("results/a-x4.jpg", b"of another program")
        with pytest.raises(CannotWrite, match="another program wrote it meanwhile"):
            store.commit(reservation, RECORD, RESULT)
        store.release(reservation)
        assert bucket.get("results/a-x4.jpg") == b"of another program"


@pytest.mark.parametrize("note", ["", "{}", "[1]", '{"px": [1], "source": 1}', '{"px": [1, 2]}'])
def test_an_object_with_another_note_is_of_another_program(
    bucket: Bucket, journal: Journal, note: str
) -> None:
    open_bucket(bucket.name, bucket.endpoint).put("results/a-x4.jpg", b"x", "image/jpeg", note)
    with pytest.raises(InvalidParameter, match="was not made by this command"):
        take(open_store(bucket, journal), A_PNG, "one")


def test_a_name_that_is_no_text_becomes_a_key_of_its_own(bucket: Bucket, journal: Journal) -> None:
    output = open_store(bucket, journal).output
    name = PurePath(os.fsdecode(b"caf\xe9-x4.jpg"))
    assert output.locate(name) == f"{bucket.url}/caf\\xe9-x4.jpg"


def test_a_bucket_that_fails_is_named_and_leaves_the_path_free(
    faulty_bucket: FaultyBucket, journal: Journal
) -> None:
    bucket = faulty_bucket.bucket
    store = open_store(bucket, journal)
    reservation = take(store, A_PNG, "one")
    assert isinstance(reservation, ReservedPath)
    faulty_bucket.fail("cut")
    target = f"{bucket.url}/a-x4.jpg"
    with pytest.raises(
        CannotWrite, match=f"^{target}: cannot be written: the connection broke off"
    ):
        store.commit(reservation, RECORD, RESULT)
    store.release(reservation)
    with pytest.raises(OSError, match=f"{target}: the connection broke off"):
        take(store, A_PNG, "one")
    faulty_bucket.fail(None)
    assert fill(store, A_PNG, "one") == "a-x4.jpg"
