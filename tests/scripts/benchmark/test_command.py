from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from scripts.benchmark import server, service
from scripts.benchmark.command import measure
from scripts.benchmark.effort import QUICK
from scripts.benchmark.machine import Figures


def test_a_first_request_alone_is_that_of_a_service_which_finds_what_another_has_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where other parts have measured it: the rows mean the same."""

    @contextmanager
    def serving(data_dir: Path, _: Mapping[str, str]) -> Iterator[Path]:
        tuning = data_dir / "tuning"
        before = tuning.exists()
        tuning.mkdir(parents=True, exist_ok=True)
        yield data_dir if before else tmp_path

    def measure_cold(served: Path, _: object) -> Figures:
        return {"is_tuned": served != tmp_path}

    monkeypatch.setattr(server, "serving", serving)
    monkeypatch.setattr(service, "measure_cold", measure_cold)
    report = measure(tmp_path, ("cold",), QUICK, "cpu")
    assert report["cold"] == {"is_tuned": True}
