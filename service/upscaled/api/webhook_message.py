"""Build and sign a webhook by Standard Webhooks, judge the receiver's answer, and send a test."""

import json
import uuid
from datetime import UTC, datetime
from typing import Any, Final

from standardwebhooks import Webhook

from upscaled.errors import ServiceError
from upscaled.fetch.client import FetchClient
from upscaled.fetch.messages import PostRequest
from upscaled.state.webhook_rows import DeliveryState

ATTEMPT_S: Final = 15.0
"""Until the head of the receiver's answer has come; Standard Webhooks asks for 15 to 30."""
ANYWHERE: Final = ("0.0.0.0/0", "::/0")
"""The networks that an address of the operator's may lead to."""

_GONE: Final = 410


def build_body(kind: str, at: datetime, data: dict[str, Any]) -> str:
    """Return the body of a webhook: the same at each attempt, as what it says does not change."""
    return json.dumps({"type": kind, "timestamp": at.isoformat(), "data": data})


def sign_request(
    url: str,
    secret: str,
    message_id: str,
    body: str,
    *,
    key_id: int,
    private_cidrs: tuple[str, ...],
) -> PostRequest:
    """Return the signed request of one attempt.

    Args:
        message_id: by which a receiver knows a webhook that it has had before.
        private_cidrs: networks that may be reached although they are private.
    """
    now = datetime.now(UTC)
    headers = {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(secret).sign(message_id, now, body),
    }
    return PostRequest(key_id, url, headers, body, private_cidrs, ATTEMPT_S)


def judge(status: int) -> tuple[str, DeliveryState]:
    """Return what an answer's status means, as text and as the state of the delivery."""
    if 200 <= status < 300:
        return f"status {status}", "delivered"
    return f"status {status}", "gone" if status == _GONE else "waiting"


async def send_test(fetcher: FetchClient, url: str, secret: str) -> tuple[str, DeliveryState]:
    """Send a signed `webhook.test` to the address of a key, once, and return what came of it."""
    body = build_body("webhook.test", datetime.now(UTC), {})
    message_id = f"test-{uuid.uuid4()}"
    request = sign_request(url, secret, message_id, body, key_id=0, private_cidrs=ANYWHERE)
    try:
        return judge(await fetcher.post(request))
    except ServiceError as error:
        return error.detail, "failed"
