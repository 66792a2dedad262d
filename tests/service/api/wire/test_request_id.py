import uuid

import pytest

from upscaled.api.wire.request_id import choose_request_id


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


KEY = "upk_0123456789abcdef_" + "x" * 43


@pytest.mark.parametrize(
    ("sent", "api_key"),
    [
        (KEY, None),
        (KEY, KEY),
        (KEY.upper(), None),
        ("id-" + KEY, None),
        ("upk_", None),
        ("a-key-of-the-hosted-api", "a-key-of-the-hosted-api"),
        ("a-key-of-the-hosted-api", " a-key-of-the-hosted-api "),
        ("x-a-key-of-the-hosted-api", "a-key-of-the-hosted-api"),
    ],
)
def test_no_key_becomes_an_id(sent: str, api_key: str | None) -> None:
    chosen = choose_request_id(sent, api_key)
    assert uuid.UUID(chosen).version == 4


@pytest.mark.parametrize("api_key", [None, "", " ", KEY])
def test_an_id_beside_a_key_is_kept(api_key: str | None) -> None:
    assert choose_request_id("order-7", api_key) == "order-7"
