import pytest
from pydantic import ValidationError

from tests.service.pool.ray_serve.reports import report
from upscaled.pool.messages import Alive, JobProgress
from upscaled.pool.ray_serve.messages import Busy, ReplicaReport, decode_from_replica, frame


@pytest.mark.parametrize(
    "message",
    [Alive(), JobProgress(job=0, done=1, total=2), Busy(retry_after_s=3, reason="queue")],
)
def test_a_message_crosses_as_bytes(message: Alive | JobProgress | Busy) -> None:
    header, payload = frame(message, b"payload")
    assert (type(header), type(payload)) == (bytes, bytes)
    assert decode_from_replica(header) == message


def test_a_report_crosses_as_bytes() -> None:
    assert ReplicaReport.model_validate_json(report().model_dump_json()) == report()


def test_what_is_no_message_is_refused() -> None:
    with pytest.raises(ValidationError):
        decode_from_replica(b'{"kind":"configure","settings":{}}')
