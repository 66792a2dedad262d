from collections.abc import Callable

import pytest

from service.state import State
from tests.service.api.answers import assert_error
from tests.service.api.executors import ResizingExecutor
from tests.service.api.serving import Service


def test_alive_and_ready(service: Service) -> None:
    for path, status in (("/healthz", "ok"), ("/readyz", "ready")):
        answer = service.get(path)
        assert (answer.status_code, answer.json()) == (200, {"status": status})
        assert answer.headers["Content-Type"] == "application/json"


def test_alive_but_not_ready_without_a_worker(make_service: Callable[..., Service]) -> None:
    executor = ResizingExecutor()
    service = make_service(executor)
    executor.is_available = False
    assert service.get("/healthz").status_code == 200
    assert assert_error(service.get("/readyz"), 503, "internal_error") == "Not ready"
    executor.is_available = True
    assert service.get("/readyz").status_code == 200


def test_alive_but_not_ready_without_its_state(
    make_service: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    service = make_service()
    with monkeypatch.context() as broken:
        broken.setattr(State, "is_healthy", lambda self: False)
        assert service.get("/healthz").status_code == 200
        assert_error(service.get("/readyz"), 503, "internal_error")
    assert service.get("/readyz").status_code == 200
