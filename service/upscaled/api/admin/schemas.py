"""The bodies of administration over HTTP; its reports are also those of the command line."""

from dataclasses import asdict
from datetime import UTC, date, datetime
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, Field

from upscaled.fetch.url import MAX_URL_CHARACTERS
from upscaled.state.audit import AuditEntry, Detail
from upscaled.state.key_rows import SCOPES, KeyChanges, ListedKey, Scope
from upscaled.state.keys import MAX_KEEP_S
from upscaled.state.usage import UsageTotals
from upscaled.state.usage_days import DAY_S
from upscaled.state.webhook_rows import Delivery, DeliveryState, KeyWebhook

HOUR_S: Final = 3600

Name = Annotated[str, Field(examples=["newsletter"], description="Letters, digits and . _ @ -")]
Rate = Annotated[
    float | None, Field(description="Requests a second; null: as the settings say", examples=[5.0])
]
Burst = Annotated[
    int | None, Field(description="Requests at once; null: as the settings say", examples=[5])
]
Expiry = Annotated[
    datetime | None, Field(description="When it ends; null: never; without an offset: UTC")
]
SomeScopes = Annotated[
    list[Scope] | None, Field(min_length=1, description="What it may be used for; null: everything")
]
Amount = Annotated[int, Field(ge=1, strict=True, examples=[100])]


class _Body(BaseModel, extra="forbid"):
    """A body that has these fields and no others."""


class NewKey(_Body):
    """An API key to be made."""

    name: Name
    credits: Annotated[int, Field(ge=0, strict=True)] = 0
    rate: Rate = None
    burst: Burst = None
    expires_at: Expiry = None
    scopes: SomeScopes = None


class KeyChange(_Body):
    """Changes to an API key; fields that are left out stay unchanged."""

    name: Name | None = None
    rate: Rate = None
    burst: Burst = None
    expires_at: Expiry = None
    scopes: SomeScopes = None

    def changes(self) -> KeyChanges:
        """Return the fields that were given, null ones too; a null `name` counts as not given."""
        given: KeyChanges = {}
        if self.name is not None:
            given["name"] = self.name
        if "rate" in self.model_fields_set:
            given["rate_per_s"] = self.rate
        if "burst" in self.model_fields_set:
            given["rate_burst"] = self.burst
        if "expires_at" in self.model_fields_set:
            given["expires_at_s"] = to_seconds(self.expires_at)
        if "scopes" in self.model_fields_set:
            given["scopes"] = None if self.scopes is None else frozenset(self.scopes)
        return given


class Rotation(_Body):
    """How an API key is rotated."""

    keep_hours: int = Field(
        default=24,
        ge=0,
        le=MAX_KEEP_S // HOUR_S,
        description="How long the secret that it has stays valid beside the new one",
    )


class CreditChange(_Body):
    """Credits to give to an API key or take from it."""

    credits: Amount


class CreditTransfer(_Body):
    """Credits to move to another API key."""

    to: Name
    credits: Amount


class Secret(_Body):
    """The secret of an API key, shown this once."""

    name: str
    secret: str = Field(description="It cannot be read again")


class Balance(_Body):
    """The credits of an API key afterwards, without those on hold."""

    name: str
    credits: int


class Key(_Body):
    """An API key without its secret."""

    id: int = Field(description="The same when the key is renamed; `key_id` in reports")
    name: str
    state: Literal["active", "expired", "revoked"]
    credits: int = Field(description="Without those on hold")
    created_at: datetime
    shown_secret: str = Field(description="Start of its secret", examples=["upk_0011..._..."])
    rate: Rate
    burst: Burst
    expires_at: datetime | None
    scopes: list[Scope] | None = Field(description="What it may be used for; null: everything")

    @classmethod
    def of(cls, key: ListedKey, now_s: float) -> Self:
        expires_at_s = key.expires_at_s
        return cls(
            id=key.id,
            name=key.name,
            state=key.state_at(now_s),
            credits=key.balance,
            created_at=_time(key.created_at_s),
            shown_secret=key.shown_secret,
            rate=key.rate.per_s,
            burst=key.rate.burst,
            expires_at=None if expires_at_s is None else _time(expires_at_s),
            scopes=None if key.scopes is None else [each for each in SCOPES if each in key.scopes],
        )


class WebhookChange(_Body):
    """A change of the address that the webhooks of an API key are sent to."""

    url: str | None = Field(
        max_length=MAX_URL_CHARACTERS,
        description="Called when a job of the key has ended; null: no address",
        examples=["https://shop.example/hook"],
    )
    new_secret: bool = Field(default=False, description="Make a new secret")


class Webhook(_Body):
    """The address that the webhooks of an API key are sent to."""

    name: str
    url: str | None = Field(description="Null: nowhere, unless a job names an address")
    has_secret: bool = Field(description="Jobs may name an address")
    is_disabled: bool = Field(description="The address answered 410, and is called no more")

    @classmethod
    def of(cls, name: str, webhook: KeyWebhook | None) -> Self:
        return cls(
            name=name,
            url=webhook.url if webhook else None,
            has_secret=webhook is not None,
            is_disabled=webhook.is_disabled if webhook else False,
        )


class ConfiguredWebhook(_Body):
    """The address of a key's webhooks, and the secret that signs them."""

    name: str
    url: str | None
    secret: str = Field(
        description="Secret of Standard Webhooks, which the receiver verifies webhooks with"
    )

    @classmethod
    def of(cls, name: str, webhook: KeyWebhook) -> Self:
        return cls(name=name, url=webhook.url, secret=webhook.secret)


class WebhookTrial(_Body):
    """The outcome of a test of a key's webhook address."""

    url: str
    outcome: str = Field(examples=["status 200"])
    is_delivered: bool = Field(description="The answer's status was 2xx")


class WebhookDelivery(_Body):
    """The webhook of a job that has ended."""

    job_id: str
    key: str = Field(description="The key's present name")
    state: DeliveryState
    attempts: int = Field(description="Attempts that were begun")
    next_at: datetime | None = Field(description="The next attempt; null: there is none")
    url: str
    outcome: str | None = Field(description="Outcome of the last attempt", examples=["status 503"])

    @classmethod
    def of(cls, delivery: Delivery) -> Self:
        return cls(
            job_id=delivery.job_id,
            key=delivery.key_name,
            state=delivery.state,
            attempts=delivery.attempts,
            next_at=_time(delivery.due_at_s) if delivery.state == "waiting" else None,
            url=delivery.url,
            outcome=delivery.outcome or None,
        )


class UsageFigures(_Body):
    """The usage of one group; what it is not grouped by, and what is unknown, is null."""

    day: date | None = Field(description="UTC")
    key: str | None = Field(description="The key's present name")
    key_id: int | None = Field(description="Null: requests without a valid key")
    model: str | None = Field(description="Null: no model made an image")
    requests: int = Field(description="Answers, and requests whose clients left before one")
    images: int = Field(description="Delivered, those of jobs included")
    refused: int = Field(description="Errors of the request")
    failed: int = Field(description="Errors of the service")
    left: int = Field(description="The client left, or cancelled the job")
    credits: int
    input_mp: float
    output_mp: float
    device_s: float

    @classmethod
    def of(cls, totals: UsageTotals) -> Self:
        same = {name: each for name, each in asdict(totals).items() if name in cls.model_fields}
        return cls(
            **same
            | {
                "day": None if totals.day is None else _time(totals.day * DAY_S).date(),
                "key": totals.key_name,
                "input_mp": round(totals.input_px / 1e6, 3),
                "output_mp": round(totals.output_px / 1e6, 3),
                "device_s": round(totals.device_s, 3),
            }
        )


class AuditedChange(_Body):
    """A change of keys, credits or webhooks."""

    at: datetime
    actor: str = Field(examples=["root@upscale1", "admin:alice"])
    action: str = Field(examples=["keys create"])
    subject: str = Field(description="The key's name before, or the id of a webhook's job")
    key_id: int
    details: dict[str, Detail] = Field(description="What was given; never a secret")

    @classmethod
    def of(cls, entry: AuditEntry) -> Self:
        return cls(
            at=_time(entry.at_s),
            actor=entry.actor,
            action=entry.action,
            subject=entry.subject,
            key_id=entry.key_id,
            details=dict(entry.details),
        )


def to_seconds(at: datetime | None) -> int | None:
    """Return a time in seconds since 1970, as of `in_utc`."""
    return None if at is None else int(in_utc(at).timestamp())


def in_utc(at: datetime) -> datetime:
    """Return a time that a client gave: one without an offset is in UTC."""
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _time(at_s: float) -> datetime:
    return datetime.fromtimestamp(at_s, UTC)
