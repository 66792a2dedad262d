"""Results in a bucket, where no journal lies beside them and other programs write too."""

import hashlib
import json
import os
from pathlib import PurePath

import pytest

from tests.buckets import Bucket, Fault, FaultyBucket
from tests.service.batch.test_output_store import A_PNG, SETTINGS, content, fill, take
from upscaled.batch.bucket_source import S3Url, open_bucket
from upscaled.batch.files import CannotWrite
from upscaled.batch.journal import Journal, Record
from upscaled.batch.output_bucket import OutputBucket
from upscaled.batch.output_store import ExistingResult, OutputStore, ReservedPath
from upscaled.errors import InvalidParameter

RESULT = b"result"
RECORD = Record(content("one"), SETTINGS, hashlib.sha256(RESULT).digest(), 6, 0, 3, 4, "m")


def open_store(bucket: Bucket, journal: Journal, *, is_overwriting: bool = False) -> OutputStore:
    client = open_bucket(bucket.name, bucket.endpoint)
    output = OutputBucket(S3Url(bucket.name, bucket.prefix), client, journal)
    return OutputStore(output, is_overwriting=is_overwriting)


def test_another_machine_recognises_what_is_done_by_the_objects_alone(bucket: Bucket) -> None:
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


def test_two_machines_that_make_the_same_result_at_once_both_succeed(bucket: Bucket) -> None:
    with Journal(None) as one, Journal(None) as other:
        stores = [open_store(bucket, journal) for journal in (one, other)]
        reservations = [take(store, A_PNG, "one") for store in stores]
        records = []
        for store, reservation in zip(stores, reservations, strict=True):
            assert isinstance(reservation, ReservedPath)
            records.append(store.commit(reservation, RECORD, RESULT))
    assert records == [RECORD, RECORD]
    assert bucket.get("results/a-x4.jpg") == RESULT


FLAWS: list[list[Fault]] = [["busy", "busy"], ["cut"], ["answer lost"]]


@pytest.mark.parametrize("is_renewed", [False, True])
@pytest.mark.parametrize("faults", FLAWS)
def test_a_result_is_put_once_although_requests_fail(
    faulty_bucket: FaultyBucket, journal: Journal, faults: list[Fault], is_renewed: bool
) -> None:
    store = open_store(faulty_bucket.bucket, journal)
    if is_renewed:
        fill(store, A_PNG, "old")
    reservation = take(store, A_PNG, "one")
    assert isinstance(reservation, ReservedPath)
    faulty_bucket.fail_next(*faults)
    assert store.commit(reservation, RECORD, RESULT) == RECORD
    assert faulty_bucket.proxy.faults == []
    assert faulty_bucket.bucket.get("results/a-x4.jpg") == RESULT


def test_what_another_machine_made_of_other_content_meanwhile_is_never_replaced(
    bucket: Bucket,
) -> None:
    with Journal(None) as one, Journal(None) as other:
        store = open_store(bucket, one)
        reservation = take(store, A_PNG, "one")
        assert isinstance(reservation, ReservedPath)
        assert fill(open_store(bucket, other), "/in/a.jpg", "two") == "a-x4.jpg"
        with pytest.raises(CannotWrite, match="another program wrote it meanwhile"):
            store.commit(reservation, RECORD, RESULT)
        store.release(reservation)
        assert fill(store, A_PNG, "one") == "a.png-x4.jpg", "in the next run"


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
