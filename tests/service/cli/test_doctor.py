"""`upscaled doctor` as a person runs it, with each fault planted for real."""

import json
import re
import resource
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.listening import free_port
from tests.running import clean_environment, run_on_terminal, run_upscaled, serve
from tests.service.cli.invoking import invoke
from tests.service.state.disks import small_disk
from upscaled_models.registry import official_models

WITHIN_S = 15.0
GENERAL = next(spec for spec in official_models() if spec.name == "realesr-general-x4v3")


@dataclass(frozen=True)
class Examined:
    """The doctor's output, its exit status, and its processor time: a busy machine makes
    all else longer.
    """

    returncode: int
    document: dict[str, Any]
    seconds: float

    def of(self, check: str) -> list[tuple[str, str]]:
        """(status, what was found) of a check's lines."""
        found = self.document["findings"]
        return [(each["status"], each["found"]) for each in found if each["check"] == check]


def examine(data_dir: Path, *options: str, **settings: str) -> Examined:
    environment = clean_environment(
        UPSCALED_DATA_DIR=str(data_dir), UPSCALED_PRECISION="exact", **settings
    )
    before_s = _processor_s()
    done = run_upscaled(environment, "doctor", "--json", *options, is_checked=False)
    assert done.stderr == ""
    return Examined(done.returncode, json.loads(done.stdout), _processor_s() - before_s)


def _processor_s() -> float:
    """Of all processes that this one started and that ended, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.slow
def test_a_healthy_service_has_no_failure(tmp_path: Path) -> None:
    with serve(tmp_path) as server:
        port = server.url.rpartition(":")[2]
        examined = examine(tmp_path, "--running", "--port", port)
    assert examined.returncode == 0, examined.document
    assert examined.document["status"] in ("ok", "warning")
    assert examined.seconds < WITHIN_S
    assert [status for status, _ in examined.of("port")] == ["ok"]
    failures = [each for each in examined.document["findings"] if each["status"] == "failure"]
    assert failures == []


@pytest.mark.slow
def test_faults_are_printed_with_what_to_do(tmp_path: Path) -> None:
    """Four at once: a bad base URL, no model, a closed port, and no room for the data folder."""
    blocked = tmp_path / "data"
    blocked.write_text("")
    settings = {
        "UPSCALED_DATA_DIR": str(blocked),
        "UPSCALED_PUBLIC_BASE_URL": "upscale.example.com",
        "UPSCALED_MODEL_X4": GENERAL.name,
    }
    done = invoke("doctor", "--running", "--port", str(free_port()), env=settings)
    assert done.exit_code == 1
    lines = done.stdout.splitlines()
    for start in ("settings", "data folder", "models", "port", "engine"):
        (at,) = (n for n, line in enumerate(lines) if re.match(rf"failure +{start} ", line))
        assert lines[at + 1].lstrip().startswith("do: ")
    assert re.fullmatch(r"upscaled \S+: \d+ ok, (\d+ warnings?, )?5 failures, in \S+ s", lines[-1])
    assert "\x1b" not in done.stdout


@pytest.fixture
def planted(tmp_path: Path) -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


FAULTS = {
    "wrong hash": "models",
    "full disk": "disk",
    "unwritable folder": "data folder",
    "no model": "models",
    "bad base URL": "settings",
    "dead database": "database",
    "missing engine": "engine",
    "closed port": "port",
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_found_in_time(fault: str, tmp_path: Path, planted: ExitStack) -> None:
    """Each alone: its own line fails, and those that have nothing to do with it do not."""
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    options, settings = _plant(fault, data_dir, planted)
    examined = examine(data_dir, *options, **settings)
    assert "failure" in [status for status, _ in examined.of(FAULTS[fault])], examined.document
    assert examined.returncode == 1
    assert examined.seconds < WITHIN_S
    failing = {x["check"] for x in examined.document["findings"] if x["status"] == "failure"}
    also = {"wrong hash": {"engine"}, "no model": {"engine"}, "full disk": {"data folder"}}
    assert failing <= {FAULTS[fault]} | also.get(fault, set())


def _plant(fault: str, data_dir: Path, planted: ExitStack) -> tuple[list[str], dict[str, str]]:
    """(options, settings) that go with it."""
    dead = f"postgresql://upscaled@127.0.0.1:{free_port()}/upscaled"
    match fault:
        case "wrong hash":
            (data_dir / "models").mkdir()
            (data_dir / "models" / GENERAL.file_name).write_bytes(b"\0" * GENERAL.size_bytes)
            return [], {"UPSCALED_MODEL_X4": GENERAL.name}
        case "full disk":
            planted.enter_context(small_disk(data_dir, 2**20))
            with pytest.raises(OSError, match="No space"):
                (data_dir / "all").write_bytes(b"\0" * 2**21)
        case "unwritable folder":
            (data_dir / "results").write_text("")
        case "no model":
            return [], {"UPSCALED_MODEL_X2": GENERAL.name}
        case "bad base URL":
            return [], {"UPSCALED_PUBLIC_BASE_URL": "htps://upscale.example.com"}
        case "dead database":
            return [], {"UPSCALED_DATABASE_URL": dead}
        case "missing engine":
            return [], {"UPSCALED_DEVICE": "cuda:99"}
        case "closed port":
            return ["--running", "--port", str(free_port())], {}
    return [], {}


def test_a_terminal_gets_colours_and_folded_lines(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('planted')")
    environment = clean_environment(
        UPSCALED_DATA_DIR=str(tmp_path), COLUMNS="60", TERM="xterm", PYTHONPATH=str(tmp_path)
    )
    status, text = run_on_terminal(environment, "doctor", "--port", str(free_port()))
    assert status == 1
    assert "\x1b[1;31mfailure" in text
    lines = re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()
    assert max(len(line) for line in lines) <= 60


@pytest.mark.parametrize("options", [["--port", "0"], ["--port", "70000"], ["--what"]])
def test_wrong_options_are_usage_errors(options: list[str]) -> None:
    assert invoke("doctor", *options).exit_code == 2
