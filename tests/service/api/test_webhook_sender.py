"""Webhooks to a real receiver that answers, fails, hangs, redirects, or may not be called."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import sqlalchemy as sa
from standardwebhooks import Webhook, WebhookVerificationError

from tests.listening import free_port
from tests.service.api.answers import assert_error
from tests.service.api.executors import IdleExecutor
from tests.service.api.pictures import size_of
from tests.service.api.receiver import Receiver, receive, status
from tests.service.api.serving import Service, serve
from tests.service.api.waiting import wait_until
from upscaled.api import webhook_sender
from upscaled.state import open_state
from upscaled.state import webhooks as state_webhooks
from upscaled.state.job_rows import JobOrder
from upscaled.state.schema import WEBHOOK_DELIVERIES
from upscaled.state.webhook_rows import Delivery, DeliveryState

Make = Callable[..., Service]
ENDLESS_HEAD = b"HTTP/1.1 200 OK\r\n" + b"X: " + b"a" * 400_000


SETTINGS: dict[str, Any] = {"metering": True, "credits": 50, "webhook_cidrs": "127.0.0.1/32"}


@pytest.fixture(autouse=True, scope="module")
def short_waits() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(webhook_sender, "POLL_EVERY_S", 0.02)
        yield


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receive() as running:
        yield running


@pytest.fixture
def inside() -> Iterator[Receiver]:
    """A receiver at an address that no setting allows."""
    with receive(host="127.0.0.2") as running:
        yield running


@pytest.fixture
def service(make_service: Make) -> Service:
    running = make_service(IdleExecutor(), **SETTINGS)
    running.state.webhooks.configure("test", None)
    return running


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Such a service for tests of one webhook each; those of others must not concern them."""
    with serve(tmp_path_factory.mktemp("shared") / "data", IdleExecutor(), **SETTINGS) as running:
        running.state.webhooks.configure("test", None)
        yield running


def submit(service: Service, webhook: str | bytes = "", **given: str) -> requests.Response:
    headers: dict[str, str | bytes] = {**given}
    if webhook:
        headers["X-Upscale-Webhook"] = webhook
    return service.upload(headers=service.headers | {"Prefer": "respond-async"} | headers)


def run(service: Service, webhook: str | bytes = "") -> str:
    """Submit a job, and return its id."""
    answer = submit(service, webhook)
    assert answer.status_code == 202
    return str(answer.json()["id"])


def delivery_of(service: Service, job_id: str) -> Delivery:
    return {each.job_id: each for each in service.state.webhooks.list()}[job_id]


def wait_for_outcome(service: Service, job_id: str) -> Delivery:
    def has_outcome() -> bool:
        deliveries = service.state.webhooks.list()
        return any(each.outcome for each in deliveries if each.job_id == job_id)

    wait_until(has_outcome, 40)
    return delivery_of(service, job_id)


def verify(service: Service, receiver: Receiver, number: int = 0) -> dict[str, object]:
    """Return the body of a call whose signature holds."""
    webhook = service.state.webhooks.show("test")
    assert webhook is not None
    call = receiver.calls[number]
    body: dict[str, object] = Webhook(webhook.secret).verify(call.body, call.headers)
    return body


def test_a_receiver_is_sent_the_job_with_a_signature(service: Service, receiver: Receiver) -> None:
    job_id = run(service, receiver.url)
    wait_until(lambda: receiver.calls != [] and delivery_of(service, job_id).state == "delivered")
    body = verify(service, receiver)
    job = service.get(f"/v1/jobs/{job_id}", headers=service.headers).json()
    assert body == {"type": "job.succeeded", "timestamp": body["timestamp"], "data": job}
    assert size_of(requests.get(job["result_url"], timeout=60).content) == (160, 128)
    (call,) = receiver.calls
    assert call.path == "/hook"
    assert call.headers["webhook-id"] == job_id
    assert call.headers["content-type"] == "application/json"
    assert service.key not in str(call)
    tampered = call.body.replace(b"succeeded", b"cancelled")
    secret = getattr(service.state.webhooks.show("test"), "secret", "")
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(tampered, call.headers)
    counted = 'upscaled_webhooks_total{state="delivered"} 1.0'
    wait_until(lambda: counted in service.get("/metrics").text)


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_an_address_beyond_ascii_is_the_one_that_the_client_wrote(
    shared: Service, encoding: str
) -> None:
    with receive() as receiver:
        job_id = run(shared, f"{receiver.url}/\u00fc".encode(encoding))
        assert wait_for_outcome(shared, job_id).url == f"{receiver.url}/\u00fc"
        assert [call.path for call in receiver.calls] == ["/hook/%C3%BC"]


@pytest.mark.parametrize(
    ("answer", "state", "outcome"),
    [
        (status(200), "delivered", "status 200"),
        (status(204), "delivered", "status 204"),
        (status(299), "delivered", "status 299"),
        (b"HTTP/1.1 200 OK\r\n\r\nno end", "delivered", "status 200"),
        (status(300), "waiting", "status 300"),
        (status(304), "waiting", "status 304"),
        (status(400), "waiting", "status 400"),
        (status(404), "waiting", "status 404"),
        (status(410), "gone", "status 410"),
        (status(429), "waiting", "status 429"),
        (status(503, "Retry-After: 1"), "waiting", "status 503"),
        (b"", "waiting", "not finished within 0.5 s"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "waiting", ""),
        (b"HTTP/1.1 200 OK\r\nX: ends within", "waiting", "within its head"),
        (ENDLESS_HEAD, "waiting", ""),
    ],
)
def test_the_receivers_status_decides_whether_a_webhook_is_delivered(
    shared: Service,
    monkeypatch: pytest.MonkeyPatch,
    answer: bytes,
    state: DeliveryState,
    outcome: str,
) -> None:
    if answer == b"":
        monkeypatch.setattr(webhook_sender, "ATTEMPT_S", 0.5)
    with receive(answer) as receiver:
        job_id = run(shared, receiver.url)
        delivery = wait_for_outcome(shared, job_id)
        assert (delivery.state, delivery.attempts) == (state, 1)
        assert outcome in delivery.outcome
        assert len(receiver.calls) == 1


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(shared: Service, inside: Receiver, code: int) -> None:
    with receive(status(code, f"Location: {inside.url}")) as redirecting:
        delivery = wait_for_outcome(shared, run(shared, redirecting.url))
        assert (delivery.state, delivery.outcome) == ("waiting", f"status {code}")
        assert inside.calls == []


def test_a_receiver_that_is_not_there_is_tried_again(shared: Service) -> None:
    delivery = wait_for_outcome(shared, run(shared, f"http://127.0.0.1:{free_port()}/"))
    assert (delivery.state, delivery.attempts) == ("waiting", 1)
    assert delivery.due_at_s > 0


@pytest.mark.parametrize(
    "address",
    ["127.0.0.2", "2130706434", "0x7f000002", "127.2", "[::ffff:127.0.0.2]", "[::1]", "0.0.0.0"],
)
def test_the_address_of_a_job_cannot_reach_private_networks(
    shared: Service, inside: Receiver, address: str
) -> None:
    job_id = run(shared, f"http://{address}:{inside.port}/hook")
    delivery = wait_for_outcome(shared, job_id)
    assert delivery.state == "waiting"
    assert delivery.outcome != ""
    assert "status" not in delivery.outcome
    assert inside.calls == []


@pytest.mark.parametrize("address", ["10.0.0.1", "169.254.169.254", "192.168.0.1", "[fd00::1]"])
def test_private_networks_are_refused_before_a_connection(shared: Service, address: str) -> None:
    delivery = wait_for_outcome(shared, run(shared, f"http://{address}/"))
    assert delivery.outcome.endswith("is a private address, see UPSCALED_WEBHOOK_CIDRS")


def test_the_address_of_a_key_may_be_in_a_private_network(
    service: Service, inside: Receiver
) -> None:
    service.state.webhooks.configure("test", inside.url)
    job_id = run(service)
    assert wait_for_outcome(service, job_id).state == "delivered"
    assert verify(service, inside)["type"] == "job.succeeded"


def test_a_later_attempt_repeats_the_id_and_the_body_under_a_fresh_signature(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_webhooks, "WAITS_S", (1.1, 0.01))
    with receive(status(500), status(500), status(200)) as receiver:
        job_id = run(service, receiver.url)
        wait_until(lambda: len(receiver.calls) == 3, 20)
        wait_until(lambda: delivery_of(service, job_id).state == "delivered")
        assert {call.headers["webhook-id"] for call in receiver.calls} == {job_id}
        assert len({call.body for call in receiver.calls}) == 1
        assert len({call.headers["webhook-timestamp"] for call in receiver.calls}) > 1
        for number in range(3):
            verify(service, receiver, number)


def test_an_address_of_a_key_that_answers_410_is_not_called_again(service: Service) -> None:
    with receive(status(410)) as receiver:
        service.state.webhooks.configure("test", receiver.url)
        first = run(service)
        assert wait_for_outcome(service, first).state == "gone"
        later = run(service)
        path = f"/v1/jobs/{later}"
        wait_until(lambda: service.get(path, headers=service.headers).json()["ended_at"])
        assert [each.job_id for each in service.state.webhooks.list()] == [first]
        assert len(receiver.calls) == 1


def test_receivers_of_one_key_that_hang_delay_no_other_key(
    service: Service, receiver: Receiver
) -> None:
    other = service.state.keys.create("other", credits=1)
    service.state.webhooks.configure("other", receiver.url)
    with receive(b"") as hanging:
        service.state.webhooks.configure("test", hanging.url)
        for _ in range(webhook_sender.MAX_AT_ONCE_PER_KEY + 2):
            run(service)
        wait_until(lambda: len(hanging.calls) == webhook_sender.MAX_AT_ONCE_PER_KEY, 20)
        assert service.upload(headers={"X-API-KEY": other, "Prefer": "respond-async"}).ok
        wait_until(lambda: len(receiver.calls) == 1, 20)
        assert len(hanging.calls) == webhook_sender.MAX_AT_ONCE_PER_KEY


def test_a_stop_during_a_call_leaves_it_to_the_next_front_end_at_once(tmp_path: Path) -> None:
    with receive(b"", status(200)) as receiver:
        with serve(tmp_path / "data", IdleExecutor(), **SETTINGS) as stopped:
            stopped.state.webhooks.configure("test", receiver.url)
            job_id = run(stopped)
            wait_until(lambda: len(receiver.calls) == 1, 20)
        with open_state(stopped.settings) as state:
            (delivery,) = state.webhooks.list("waiting")
            assert (delivery.job_id, delivery.attempts) == (job_id, 0)
        with serve(tmp_path / "data", IdleExecutor(), key=stopped.key, **SETTINGS) as later:
            wait_until(lambda: delivery_of(later, job_id).state == "delivered", 20)
            assert len(receiver.calls) == 2


def test_the_sender_continues_after_an_outage_of_the_database(
    service: Service, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures: list[str] = []

    def fail(*_: object) -> None:
        failures.append("")
        raise RuntimeError("no such table")

    with monkeypatch.context() as broken:
        broken.setattr("upscaled.state.webhooks.Webhooks.claim", fail)
        run(service, receiver.url)
        wait_until(lambda: len(failures) > 2)
    wait_until(lambda: len(receiver.calls) == 1)


def test_the_webhook_of_a_cancelled_job_has_that_state(
    service: Service, receiver: Receiver
) -> None:
    service.app.state.context.job_runner._paused_until_s = float("inf")
    job_id = run(service, receiver.url)
    url = f"{service.url}/v1/jobs/{job_id}"
    job = requests.delete(url, headers=service.headers, timeout=60).json()
    wait_until(lambda: len(receiver.calls) == 1)
    body = verify(service, receiver)
    assert (body["type"], body["data"]) == ("job.cancelled", job)


@pytest.mark.parametrize("webhook", ["x", "ftp://a.example/", "http://user@a.example/", "http://"])
def test_an_address_that_is_no_url_is_refused(service: Service, webhook: str) -> None:
    text = assert_error(submit(service, webhook), 400, "invalid_parameter")
    assert text == "X-Upscale-Webhook must be one http or https URL without a user name"
    assert service.balance() == 50
    assert list((service.settings.data_dir / "job-sources").glob("*")) == []


def test_a_key_without_a_secret_cannot_name_an_address(make_service: Make) -> None:
    service = make_service(IdleExecutor())
    refused = submit(service, "https://a.example/")
    assert_error(refused, 400, "invalid_parameter")
    assert "secret" in refused.json()["error"]


def test_without_a_job_the_header_means_nothing(shared: Service) -> None:
    headers = shared.headers | {"X-Upscale-Webhook": "x"}
    assert shared.upload(headers=headers).status_code == 200


def test_the_address_is_part_of_what_a_request_sent_again_repeats(
    shared: Service, receiver: Receiver
) -> None:
    first = submit(shared, receiver.url, **{"Idempotency-Key": "order-17"})
    again = submit(shared, receiver.url, **{"Idempotency-Key": "order-17"})
    assert again.json()["id"] == first.json()["id"]
    other = submit(shared, receiver.url + "2", **{"Idempotency-Key": "order-17"})
    assert_error(other, 400, "invalid_parameter")


KILLED: dict[str, str] = {
    "between the commit and the call": "",
    "while it calls": "assert state.webhooks.claim()",
}


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(step, id=name, marks=() if step else pytest.mark.slow)
        for name, step in KILLED.items()
    ],
)
def test_a_webhook_is_sent_after_the_process_that_claimed_it_was_killed(
    make_service: Make, receiver: Receiver, step: str
) -> None:
    service = make_service(metering=True, credits=1)
    settings = service.settings
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from upscaled.config import load_settings\n"
        "from upscaled.state import PaidResult, open_state\n"
        "state = open_state(load_settings({}, data_dir=Path(sys.argv[1])))\n"
        "claimed = state.jobs.claim()\n"
        "assert state.jobs.finish(claimed, PaidResult('0.jpg', 'image/jpeg'))\n"
        f"{step}\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    service.app.state.context.webhook_sender._webhooks = _Nothing()
    state = service.state
    state.webhooks.configure("test", receiver.url)
    key = state.keys.verify(service.key)
    assert key is not None
    order = JobOrder("source", None, 4, "", base_url=service.url)
    job = state.jobs.submit(key.id, order, is_metered=True, max_unfinished=9).job
    command = [sys.executable, "-c", program, str(settings.data_dir)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert receiver.calls == []
    assert delivery_of(service, job.id).attempts == bool(step)
    assert state.credits.audit() == ()
    with state.database.write() as connection:  # its lease ends
        connection.execute(sa.update(WEBHOOK_DELIVERIES).values(due_at_s=0.0))
    service.app.state.context.webhook_sender._webhooks = state.webhooks
    wait_until(lambda: delivery_of(service, job.id).state == "delivered", 20)
    (call,) = receiver.calls
    assert json.loads(call.body)["data"]["id"] == call.headers["webhook-id"] == job.id
    assert state.credits.show("test") == 0


class _Nothing:
    """Webhooks that are never due: this front end sends none."""

    def claim(self, *_: object) -> None:
        return None
