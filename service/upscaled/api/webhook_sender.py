"""Send the webhooks of jobs that have ended, signed by Standard Webhooks, from any front end.

The calls are made by the fetch process, under its guard: an address that a job named must not be
private, unless `UPSCALED_WEBHOOK_CIDRS` allows it, and no redirect is followed.
"""

import asyncio
import json
import logging
import uuid
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

from standardwebhooks import Webhook

from upscaled.api.cancellation import cancel, run_to_end
from upscaled.api.schemas import describe_job, format_time
from upscaled.api.telemetry.metrics import Metrics
from upscaled.config import Settings
from upscaled.errors import ServiceError
from upscaled.fetch.client import FetchClient
from upscaled.fetch.messages import PostRequest
from upscaled.logs import event
from upscaled.state import DatabaseFailed, State
from upscaled.state.webhook_rows import ClaimedDelivery, DeliveryState

POLL_EVERY_S: Final = 1.0
"""Interval at which the database is searched for webhooks that are due."""
MAX_AT_ONCE: Final = 16
MAX_AT_ONCE_PER_KEY: Final = 4
"""Receivers of one key that do not answer leave the other calls to those of other keys."""

_logger: Final = logging.getLogger(__name__)
ATTEMPT_S: Final = 15.0
"""Until the head of the receiver's answer has come; Standard Webhooks recommends 15 to 30."""
ANYWHERE: Final = ("0.0.0.0/0", "::/0")
"""The networks that an address of the operator's may lead to."""

_GONE: Final = 410


class WebhookSender:
    """Claims webhooks that are due and sends them, each as a task on the event loop."""

    def __init__(
        self, settings: Settings, state: State, *, fetcher: FetchClient, metrics: Metrics
    ) -> None:
        self._settings = settings
        self._webhooks = state.webhooks
        self._fetcher = fetcher
        self._metrics = metrics
        self._allowed = tuple(map(str, settings.webhook_cidrs))
        self._running: dict[asyncio.Task[None], int] = {}
        self._has_failed = False

    async def run_forever(self) -> None:
        """Send webhooks until cancelled; calls under way then break off, and others make them."""
        try:
            while True:
                while len(self._running) < MAX_AT_ONCE and (claimed := await self._claim()):
                    task = asyncio.create_task(self._send(claimed))
                    self._running[task] = claimed.job.key_id
                    task.add_done_callback(self._running.pop)
                await asyncio.sleep(POLL_EVERY_S)
        finally:
            await cancel(*self._running)

    async def _claim(self) -> ClaimedDelivery | None:
        keys = list(self._running.values())
        busy = {key_id for key_id in keys if keys.count(key_id) >= MAX_AT_ONCE_PER_KEY}
        try:
            claiming = asyncio.to_thread(self._webhooks.claim, busy)
            claimed = await run_to_end(claiming, self._put_back)
        except Exception as error:  # noqa: BLE001  (every failure is tried again)
            if not self._has_failed:
                fields = event("webhook_claim_failed")
                _logger.warning("no webhook can be claimed: %s", error, extra=fields)
            self._has_failed = True
            return None
        self._has_failed = False
        return claimed

    async def _put_back(self, claimed: ClaimedDelivery | None) -> None:
        """Release the lease of a call that was not finished; where that fails, it runs out."""
        if claimed is not None:
            with suppress(DatabaseFailed):
                await asyncio.to_thread(self._webhooks.put_back, claimed)

    async def _send(self, claimed: ClaimedDelivery) -> None:
        """Make one attempt, and record how it ended."""
        try:
            outcome, state = await self._attempt(claimed)
        except asyncio.CancelledError:
            await run_to_end(self._put_back(claimed))
            raise
        recording = asyncio.to_thread(self._webhooks.record, claimed, outcome, state)
        try:
            recorded = await run_to_end(recording)
        except DatabaseFailed as error:  # its lease runs out, and it is sent again
            outcome, recorded = f"{outcome}, not recorded: {error}", "waiting"
        if recorded is None:
            return
        self._metrics.webhooks.labels(recorded).inc()
        fields = event(
            "webhook_delivered" if recorded == "delivered" else "webhook_failed",
            job_id=claimed.job.id,
            key_name=claimed.job.key_name,
            attempt=claimed.attempts,
            state=recorded,
            outcome=outcome,
        )
        level = logging.INFO if recorded in ("delivered", "waiting") else logging.WARNING
        _logger.log(level, "an attempt at a webhook ended: %s", outcome, extra=fields)

    async def _attempt(self, claimed: ClaimedDelivery) -> tuple[str, DeliveryState]:
        job = claimed.job
        request = sign_request(
            claimed.url,
            claimed.secret,
            job.id,
            self._build_body(claimed),
            key_id=job.key_id,
            private_cidrs=ANYWHERE if claimed.is_trusted else self._allowed,
        )
        try:
            return classify_answer(await self._fetcher.post(request))
        except ServiceError as error:
            return error.detail, "waiting"

    def _build_body(self, claimed: ClaimedDelivery) -> str:
        job = claimed.job
        described = describe_job(
            job,
            (job.tiles_done, job.tiles_total),
            base_url=self._settings.public_base_url or job.order.base_url or "",
            lifetime_s=self._settings.job_result_lifetime_s,
        )
        at = format_time(job.ended_at_s or 0.0)
        return build_body(f"job.{job.state}", at, described.model_dump(mode="json"))


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
        message_id: by which a receiver recognises a webhook that it has received before.
        private_cidrs: networks that may be reached although they are private.
    """
    now = datetime.now(UTC)
    headers = {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(secret).sign(message_id, now, body),
    }
    return PostRequest(key_id, url, headers, body, private_cidrs, ATTEMPT_S)


def classify_answer(status: int) -> tuple[str, DeliveryState]:
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
        return classify_answer(await fetcher.post(request))
    except ServiceError as error:
        return error.detail, "failed"
