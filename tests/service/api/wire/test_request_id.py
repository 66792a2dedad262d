import uuid

import pytest

from service.api.wire.request_id import choose_request_id


@pytest.mark.parametrize("sent", ["a", "A-1_b.c", "x" * 128, str(uuid.uuid4())])
def test_a_sane_id_is_kept(sent: str) -> None:
    assert choose_request_id(sent) == sent


@pytest.mark.parametrize(
    "sent", [None, "", "x" * 129, "a b", "a\n", "a\r\nX: y", "<script>", "ä", "１", "a/b", '"']
)
def test_any_other_is_replaced_by_a_uuid4(sent: str | None) -> None:
    chosen = choose_request_id(sent)
    assert uuid.UUID(chosen).version == 4
    assert choose_request_id(sent) != chosen
