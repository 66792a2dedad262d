"""Hold, capture and release a credit on PostgreSQL, in one statement each.

Each is a round trip and a transaction by itself; as the single steps of `ledger` they were seven
round trips. The row of the key is locked for the time of the statement, so requests of a key at
once do not wait for each other's round trips. SQLite cannot change several tables in a statement.
"""

from typing import Final

import sqlalchemy as sa
from sqlalchemy import Connection

from upscaled.errors import InsufficientApiCredits
from upscaled.state.ledger import IMAGE_PRICE, Hold, PaidResult

# `holder` is locked before the balance is reduced, so that this process cannot be declared dead in
# between. It is joined, not asked for in a subquery: where a concurrent statement has changed the
# balance, PostgreSQL checks the condition again with the rows that it has joined.
_HOLD: Final = sa.text(f"""
    WITH holder AS (
        SELECT id FROM holders WHERE id = :holder_id AND seen_at_s IS NOT NULL FOR SHARE
    ), paying AS (
        UPDATE api_keys SET balance = balance - {IMAGE_PRICE} FROM holder
        WHERE api_keys.id = :key_id AND balance >= {IMAGE_PRICE}
        RETURNING api_keys.id
    ), entry AS (
        INSERT INTO credit_entries (key_id, request_id, kind, amount, at_s)
        SELECT id, :request_id, 'hold', -{IMAGE_PRICE}, :at_s FROM paying
    ), opened AS (
        INSERT INTO open_holds (request_id, key_id, holder_id, held_at_s)
        SELECT :request_id, id, :holder_id, :at_s FROM paying
    )
    SELECT EXISTS (SELECT FROM holder) AS is_alive, EXISTS (SELECT FROM paying) AS is_held
""")  # noqa: S608  (made of constants)
_SETTLED: Final = """
    WITH settled AS (
        DELETE FROM open_holds WHERE request_id = :request_id AND key_id = :key_id
        RETURNING request_id, key_id
    ), entry AS (
        INSERT INTO credit_entries (key_id, request_id, kind, amount, at_s)
        SELECT key_id, request_id, '{kind}', {amount}, :at_s FROM settled
    )"""
_RELEASE: Final = sa.text(f"""{_SETTLED.format(kind="release", amount=IMAGE_PRICE)}, paid AS (
        UPDATE api_keys SET balance = balance + {IMAGE_PRICE} FROM settled
        WHERE api_keys.id = settled.key_id
    )
    SELECT count(*) FROM settled
""")  # noqa: S608
_CAPTURE: Final = sa.text(f"""{_SETTLED.format(kind="capture", amount=0)}
    SELECT count(*) FROM settled
""")  # noqa: S608
_CAPTURE_RESULT: Final = sa.text(f"""{_SETTLED.format(kind="capture", amount=0)}, result AS (
        INSERT INTO stored_results (request_id, key_id, file_name, media_type, stored_at_s)
        SELECT request_id, key_id, :file_name, :media_type, :at_s FROM settled
    )
    SELECT count(*) FROM settled
""")  # noqa: S608


def place_hold(connection: Connection, hold: Hold, holder_id: str, *, at_s: int) -> bool:
    """Put one credit on hold; return False, and hold nothing, if the holder was declared dead.

    Raises:
        InsufficientApiCredits: the balance is 0.
        IntegrityError: the request id was used before.
    """
    values = {
        "key_id": hold.key_id,
        "request_id": hold.request_id,
        "holder_id": holder_id,
        "at_s": at_s,
    }
    outcome = connection.execute(_HOLD, values).one()
    if outcome.is_alive and not outcome.is_held:
        raise InsufficientApiCredits(detail=f"key {hold.key_id}")
    return bool(outcome.is_alive)


def capture(connection: Connection, hold: Hold, paid: PaidResult | None, *, at_s: int) -> bool:
    """Capture an open hold, and record the result it pays for; return False if it is not open."""
    if paid is None:
        return _settle(connection, _CAPTURE, hold, at_s)
    result = {"file_name": paid.file_name, "media_type": paid.media_type}
    return _settle(connection, _CAPTURE_RESULT, hold, at_s, **result)


def release(connection: Connection, hold: Hold, *, at_s: int) -> bool:
    """Give the credit of an open hold back; return False if it is not open."""
    return _settle(connection, _RELEASE, hold, at_s)


def _settle(
    connection: Connection, statement: sa.TextClause, hold: Hold, at_s: int, **result: str
) -> bool:
    values = {"key_id": hold.key_id, "request_id": hold.request_id, "at_s": at_s, **result}
    return bool(connection.execute(statement, values).scalar_one())
