import pytest
from pydantic import ValidationError

from tests.service.pool.pools import request
from upscaled.pool.messages import (
    Cancel,
    Done,
    FromWorker,
    ResultPiece,
    ToWorker,
    WorkerJob,
    WorkerReady,
    decode_from_worker,
    decode_to_worker,
    encode,
)
from upscaled.upscale.result import Result, Timings


@pytest.mark.parametrize("message", [WorkerJob(job=1, request=request("ä")), Cancel(job=7)])
def test_a_message_to_a_worker_arrives_as_it_was_sent(message: ToWorker) -> None:
    assert decode_to_worker(encode(message)) == message


@pytest.mark.parametrize(
    "message",
    [
        WorkerReady(
            device="cpu",
            models={2: "a", 4: "b"},
            labels={2: "torch float32", 4: "torch bfloat16"},
            slots=4,
        ),
        ResultPiece(job=3, offset=0),
        Done(
            job=3,
            result=Result(
                b"", "image/png", 10, 20, "m", "torch float32", Timings(0.1, 0.2, 0.3, 0.1)
            ),
        ),
    ],
)
def test_a_message_from_a_worker_arrives_as_it_was_sent(message: FromWorker) -> None:
    assert decode_from_worker(encode(message)) == message


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"null",
        b"[]",
        b'{"kind": "job"}',
        b'{"kind": "cancel", "job": 1, "more": 2}',
        b'{"kind": "done"}',
        b"\xff",
    ],
)
def test_a_header_that_is_no_message_is_refused(header: bytes) -> None:
    with pytest.raises(ValidationError):
        decode_to_worker(header)


def test_a_message_to_a_worker_is_refused_from_a_worker() -> None:
    with pytest.raises(ValidationError):
        decode_from_worker(encode(Cancel(job=1)))
