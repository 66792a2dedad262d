import pytest

from tests.service.api.answers import assert_error
from tests.service.api.executors import ResizingExecutor
from tests.service.api.serving import MakeService, Service
from tests.service.api.waiting import wait_until
from tests.service.state.disks import replaced_by_a_file


def test_a_service_with_a_worker_is_live_and_ready(service: Service) -> None:
    for path, status in (("/healthz", "ok"), ("/readyz", "ready")):
        answer = service.get(path)
        assert (answer.status_code, answer.json()) == (200, {"status": status})
        assert answer.headers["Content-Type"] == "application/json"


def test_a_service_without_a_worker_is_live_and_not_ready(make_service: MakeService) -> None:
    executor = ResizingExecutor()
    service = make_service(executor)
    executor.is_available = False
    assert service.get("/healthz").status_code == 200
    assert assert_error(service.get("/readyz"), 503, "internal_error") == "Not ready"
    executor.is_available = True
    assert service.get("/readyz").status_code == 200


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("upscaled.api.readiness.PROBE_EVERY_S", 0.02)


def is_ready(service: Service) -> bool:
    return service.get("/readyz").status_code == 200


@pytest.mark.usefixtures("quick")
def test_a_service_that_cannot_store_results_is_live_and_not_ready(
    make_service: MakeService, caplog: pytest.LogCaptureFixture
) -> None:
    service = make_service()
    results = service.settings.results_dir
    reason = f"not ready: {results}: cannot store a result: File exists"
    with replaced_by_a_file(results):
        # A check that had begun fails at another step, and is logged before.
        wait_until(lambda: reason in _errors(caplog))
        assert not is_ready(service)
        assert service.get("/healthz").status_code == 200
        assert assert_error(service.get("/readyz"), 503, "internal_error") == "Not ready"
        assert "\nupscaled_state_works 0.0\n" in service.get("/metrics").text
    wait_until(lambda: is_ready(service))
    assert "\nupscaled_state_works 1.0\n" in service.get("/metrics").text
    assert _errors(caplog).count(reason) == 1
    assert all(error.startswith(f"not ready: {results}: cannot ") for error in _errors(caplog))


def _errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.usefixtures("quick")
def test_a_service_whose_data_was_deleted_is_not_ready_and_charges_nothing(
    make_service: MakeService, caplog: pytest.LogCaptureFixture
) -> None:
    service = make_service(metering=True, credits=5)
    database = service.settings.data_dir / "upscaled.sqlite3"
    aside = database.rename(database.with_name("aside"))
    wait_until(lambda: not is_ready(service))
    for accept in ("*/*", "image/*"):
        answer = service.upload(headers=service.headers | {"Accept": accept})
        assert_error(answer, 500, "internal_error")
    wait_until(lambda: len(_failures(caplog)) == 2)
    # The second: of a connection that was being opened in that moment.
    ways = f"{database}: was deleted while in use", "the database does not work: unable to open"
    assert all(failure.startswith(ways) for failure in _failures(caplog))
    assert not database.exists()
    traces = [vars(record).get("event") for record in caplog.records if record.exc_info]
    assert set(traces) <= {"sweep_failed"}  # one that had just begun
    aside.rename(database)
    wait_until(lambda: is_ready(service))
    assert service.balance() == 5
    assert service.upload().status_code == 200


def _failures(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return why requests failed, by their log lines at level error, with a request's id."""
    fields = [
        vars(record)["fields"]
        for record in caplog.records
        if record.levelname == "ERROR" and vars(record).get("event") == "request"
    ]
    return [each["error_detail"].partition(";")[0] for each in fields if each["request_id"]]
