"""Build and sign a webhook by Standard Webhooks, and judge what its receiver answers."""

import json
from datetime import UTC, datetime
from typing import Any, Final

from standardwebhooks import Webhook

from upscaled.fetch.messages import PostRequest
from upscaled.state.webhooks import DeliveryState

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
