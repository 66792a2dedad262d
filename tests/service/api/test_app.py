import subprocess
import sys
from typing import Any

import psutil
import pytest

from tests.service.api.executors import ResizingExecutor
from tests.service.api.serving import MakeService, serve
from tests.service.api.waiting import wait_until
from tests.service.state.connections import opened_connections, read_at_once
from upscaled.api import app
from upscaled.errors import InternalError
from upscaled.state import DatabaseFailed, State
from upscaled.state.database import Database
from upscaled.state.engines import CONNECTIONS

IMPORTING = """
import sys, upscaled.api.app, upscaled.api.protocol.http1
from upscaled.config import Settings
from upscaled.upscale.named_models import require_models
require_models(Settings())
print(" ".join(sys.modules), flush=True)
input()
import upscaled.cli.models, upscaled_models.fetch
print(" ".join(sys.modules), flush=True)
"""


def test_the_front_end_imports_no_heavy_package() -> None:
    """No torch, NumPy, OpenCV, migrations or tracing, even where it looks for its models.

    And of its limit of 150 MB it leaves a third to `serve`.
    """
    with subprocess.Popen(
        [sys.executable, "-c", IMPORTING], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        modules = set(process.stdout.readline().split())
        memory_bytes = psutil.Process(process.pid).memory_info().rss
        of_commands = set(process.communicate("\n")[0].split())
    assert {"upscaled.api.routes.upscale", "upscaled_models.store"} <= modules
    heavy = {"torch", "numpy", "cv2", "torchvision", "alembic", "upscaled_models.backends"}
    assert not heavy & modules
    assert "torch" not in of_commands
    assert not [name for name in modules if "telemetry.sdk" in name]
    upscaling = {name for name in modules if name.startswith("upscaled.upscale.")}
    light = ("model_choice", "named_models", "result")
    assert upscaling <= {f"upscaled.upscale.{name}" for name in light}
    assert memory_bytes < 100 * 1024 * 1024


def test_the_executor_runs_as_long_as_the_application(make_service: MakeService) -> None:
    executor = ResizingExecutor()
    make_service(executor)
    assert (executor.is_started, executor.is_stopped) == (True, False)


def test_the_executor_stops_with_the_application(tmp_path: Any) -> None:
    with serve(tmp_path) as service:
        pass
    assert service.executor.is_stopped


def test_the_first_burst_finds_all_connections_to_the_database_open(
    make_service: MakeService, server_url: str
) -> None:
    service = make_service(database_url=server_url)
    wait_until(service.state.holder.lead)
    with opened_connections() as opened:
        read_at_once(service.state, CONNECTIONS)
    # The lease takes its connection out of the pool; a statement opens another in its place.
    assert len(opened) <= 1


def test_the_application_starts_with_fewer_connections_than_configured(
    make_service: MakeService, server_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_database: Database) -> None:
        raise DatabaseFailed("too many clients")

    monkeypatch.setattr(Database, "open_connections", refuse)
    assert make_service(database_url=server_url).upload().status_code == 200


def test_expired_results_are_swept_while_the_service_runs(
    make_service: MakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "SWEEP_EVERY_S", 0.02)
    now = [1_800_000_000.0]
    service = make_service(clock=lambda: now[0])
    service.upload()
    assert len(service.stored_files()) == 1
    now[0] += 3601
    wait_until(lambda: not service.stored_files())


@pytest.mark.parametrize(
    ("failure", "traces"),
    [
        (OSError("the disk is gone"), 0),
        (DatabaseFailed("the server is gone"), 0),
        (InternalError(detail="the bucket is gone"), 0),
        (RuntimeError("a bug is here"), 1),
    ],
)
def test_a_failed_sweep_is_logged_and_tried_again(
    make_service: MakeService,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    failure: Exception,
    traces: int,
) -> None:
    """Its trace is logged, once, where the text does not say what failed."""
    calls: list[None] = []

    def fail(self: State) -> int:
        calls.append(None)
        raise failure

    monkeypatch.setattr(app, "SWEEP_EVERY_S", 0.02)
    service = make_service()
    monkeypatch.setattr(State, "sweep", fail)
    wait_until(lambda: len(calls) >= 3)
    monkeypatch.undo()
    assert service.get("/healthz").status_code == 200
    logged = [each for each in caplog.records if vars(each).get("event") == "sweep_failed"]
    reason = getattr(failure, "detail", "") or str(failure)
    assert {each.getMessage() for each in logged} == {f"the sweep failed: {reason}"}
    assert sum(each.exc_info is not None for each in logged) == traces
