"""`upscaled webhooks` and `keys webhook`, on a real database, with a real receiver."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from standardwebhooks import Webhook
from typer.testing import Result

from tests.databases import make_tables
from tests.listening import free_port
from tests.service.api.receiver import Receiver, receive, status
from tests.service.cli.invoking import invoke
from upscaled.config import load_settings
from upscaled.state import State, open_state
from upscaled.state.job_rows import JobOrder


@pytest.fixture(autouse=True)
def web_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_tables(tmp_path / "data")
    monkeypatch.setenv("UPSCALED_DATA_DIR", str(tmp_path / "data"))
    assert run("keys", "create", "web", "--credits", "5").exit_code == 0


@pytest.fixture
def state() -> Iterator[State]:
    with open_state(load_settings()) as opened:
        yield opened


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receive(status(200)) as running:
        yield running


def run(*arguments: str) -> Result:
    return invoke(*arguments)


def test_the_secret_is_alone_on_the_last_line_and_stays(state: State) -> None:
    done = run("keys", "webhook", "web", "http://10.0.0.1/hook")
    assert done.exit_code == 0
    secret = done.stdout.splitlines()[-1]
    webhook = state.webhooks.show("web")
    assert webhook is not None
    assert (webhook.secret, webhook.url) == (secret, "http://10.0.0.1/hook")
    assert run("keys", "webhook", "web").stdout.splitlines()[-1] == secret
    webhook = state.webhooks.show("web")
    assert webhook is not None
    assert webhook.url is None
    renewed = run("keys", "webhook", "web", "--new-secret").stdout.splitlines()[-1]
    assert renewed != secret


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("keys", "webhook", "web", "not-a-url"), 2, "cannot be called"),
        (("keys", "webhook", "unknown", "http://a.example/"), 1, "no active API key"),
        (("webhooks", "test", "unknown"), 1, "no active API key"),
        (("webhooks", "test", "web"), 1, "has no webhook"),
        (("webhooks", "retry", "no-such-job"), 1, "no webhook of a job no-such-job"),
        (("webhooks", "list", "--state", "sent"), 2, "waiting, delivered, failed, gone"),
    ],
)
def test_what_cannot_be_done_is_one_line(arguments: tuple[str, ...], code: int, text: str) -> None:
    done = run(*arguments)
    assert (done.exit_code, done.stdout) == (code, "")
    assert text in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_test_call_is_signed_and_its_answer_is_printed(receiver: Receiver) -> None:
    secret = run("keys", "webhook", "web", receiver.url).stdout.splitlines()[-1]
    done = run("webhooks", "test", "web")
    assert (done.exit_code, done.stdout) == (0, f"{receiver.url}: status 200\n")
    (call,) = receiver.calls
    body = Webhook(secret).verify(call.body, call.headers)
    assert (body["type"], body["data"]) == ("webhook.test", {})


@pytest.mark.parametrize("is_there", [False, True])
def test_a_test_that_fails_has_status_1(is_there: bool) -> None:
    with receive(status(500)) as failing:
        url = failing.url if is_there else f"http://127.0.0.1:{free_port()}/"
        run("keys", "webhook", "web", url)
        done = run("webhooks", "test", "web")
        assert (done.exit_code, done.stdout) == (1, "")
        assert f"upscaled: {url}: " in done.stderr
        assert ("status 500" in done.stderr) == is_there


def test_webhooks_are_listed_by_state_and_sent_again(state: State) -> None:
    run("keys", "webhook", "web", "http://10.0.0.1/hook")
    order = JobOrder("source", None, 4, "")
    job = state.jobs.submit(1, order, is_metered=True, max_unfinished=9).job
    state.jobs.cancel(1, job.id)
    claimed = state.webhooks.claim()
    assert claimed is not None
    state.webhooks.record(claimed, "status 200", "delivered")
    head, row = run("webhooks", "list").stdout.splitlines()
    assert head.split() == ["JOB", "KEY", "STATE", "ATTEMPTS", "NEXT", "URL", "OUTCOME"]
    url = "http://10.0.0.1/hook"
    assert row.split() == [job.id, "web", "delivered", "1", "-", url, "status", "200"]
    assert len(run("webhooks", "list", "--state", "waiting").stdout.splitlines()) == 1
    assert run("webhooks", "retry", job.id).exit_code == 0
    _, row = run("webhooks", "list", "--state", "waiting").stdout.splitlines()
    assert row.split()[2:4] == ["waiting", "0"]
    assert row.split()[4].endswith("Z")
