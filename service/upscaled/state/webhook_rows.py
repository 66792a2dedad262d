"""Read and change the rows of webhooks, each step in the caller's transaction."""

import base64
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, Literal, get_args
from urllib.parse import urlsplit

import sqlalchemy as sa
from sqlalchemy import Connection

from upscaled.state.database import database_time_s, has_come
from upscaled.state.job_rows import StoredJob
from upscaled.state.schema import KEY_WEBHOOKS, WEBHOOK_DELIVERIES

DeliveryState = Literal["waiting", "delivered", "failed", "gone"]
DELIVERY_STATES: Final[tuple[DeliveryState, ...]] = get_args(DeliveryState)

SECRET_PREFIX: Final = "whsec_"  # noqa: S105  (of Standard Webhooks, so that scanners know it)
SECRET_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class KeyWebhook:
    """The webhook of an API key.

    url: None where each job has to name its own. is_disabled: the address answered 410.
    """

    secret: str
    url: str | None = None
    is_disabled: bool = False


@dataclass(frozen=True, slots=True)
class Delivery:
    """A webhook as stored: `attempts` counts those begun, `outcome` is that of the last one."""

    job_id: str
    key_name: str
    url: str
    state: DeliveryState
    attempts: int
    due_at_s: float
    outcome: str
    ended_at_s: float

    @property
    def position(self) -> tuple[float, str]:
        """Return its place in the list of all: the job's end and id."""
        return self.ended_at_s, self.job_id


@dataclass(frozen=True, slots=True)
class ClaimedDelivery:
    """A webhook to send under a lease; a trusted address, the operator's, may be private."""

    job: StoredJob
    url: str
    is_trusted: bool
    secret: str
    attempts: int
    lease_id: str


def make_secret() -> str:
    """Return a new secret to sign with, in the form of Standard Webhooks."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def site_of(url: str) -> str:
    """Return scheme, host and port of an address, without the parts that may hold a secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def find_webhook(connection: Connection, key_id: int) -> KeyWebhook | None:
    query = sa.select(KEY_WEBHOOKS).where(KEY_WEBHOOKS.c.key_id == key_id)
    row = connection.execute(query).one_or_none()
    return None if row is None else KeyWebhook(row.secret, row.url, row.is_disabled)


def queue_delivery(
    connection: Connection, job_id: str, key_id: int, webhook_url: str | None
) -> None:
    """Queue a job's webhook, to its own address or the key's, in the transaction of its end."""
    webhook = find_webhook(connection, key_id)
    url = webhook_url
    if url is None and webhook is not None and not webhook.is_disabled:
        url = webhook.url
    if webhook is None or url is None:
        return
    connection.execute(
        sa.insert(WEBHOOK_DELIVERIES).values(
            job_id=job_id,
            key_id=key_id,
            url=url,
            is_trusted=webhook_url is None,
            state="waiting",
            due_at_s=database_time_s(connection),
        )
    )


def select_due(
    connection: Connection,
    busy_key_ids: Collection[int],
    longest_wait_s: sa.ColumnElement[float],
    *,
    takes_left: bool,
) -> sa.Select[str]:
    """Select the job of the delivery that is due next, of none of the keys given.

    Args:
        longest_wait_s: how far ahead a delivery as it is now can have been made due.
        takes_left: also one whose lease looks over.
    """
    row = WEBHOOK_DELIVERIES.c
    return (
        sa.select(row.job_id)
        .where(
            row.state == sa.literal_column("'waiting'"),  # of the index, as of unfinished jobs
            has_come(connection, row.due_at_s, longest_wait_s),
            row.key_id.not_in(busy_key_ids),
            sa.true() if takes_left else row.lease_id.is_(None),
        )
        .order_by(sa.case((row.attempts == 0, 0), else_=1), row.due_at_s, row.job_id)
        .limit(1)
    )


def give_up_address(connection: Connection, key_id: int, url: str, outcome: str) -> None:
    """End the webhooks that wait for an address that answers 410, and disable it at its key."""
    row, own = WEBHOOK_DELIVERIES.c, KEY_WEBHOOKS.c
    is_same = sa.and_(row.key_id == key_id, row.url == url, row.state == "waiting")
    connection.execute(
        sa.update(WEBHOOK_DELIVERIES).where(is_same).values(state="gone", outcome=outcome)
    )
    is_own = sa.and_(own.key_id == key_id, own.url == url)
    connection.execute(sa.update(KEY_WEBHOOKS).where(is_own).values(is_disabled=True))
