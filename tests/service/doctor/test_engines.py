"""The process that opens the engines: sound, broken, and crashing."""

import os
import sys
from pathlib import Path

import pytest

from tests.service.doctor.conftest import MakeSettings
from upscaled.doctor.engines import check_engines, dump_finding
from upscaled.doctor.finding import Finding, Status, ok
from upscaled.doctor.golden_run import (
    advise,
    describe_connections,
    describe_devices,
    describe_engine,
    describe_gpus,
    describe_result,
)
from upscaled.upscale.result import Result, Timings
from upscaled_models.backends.base import EngineInfo
from upscaled_models.backends.openvino.runtime import import_openvino
from upscaled_models.packaged import install_packaged, is_packaged_here
from upscaled_models.registry import WEIGHTS_PACKAGE, read_default_models
from upscaled_models.store import ModelStore

SPEC = next(spec for spec in read_default_models() if spec.name == "upscaled-x4")


def by_check(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.check: finding for finding in findings}


@pytest.mark.slow
def test_the_golden_pictures_are_what_the_shipped_models_make(make_settings: MakeSettings) -> None:
    """In float32, where no machine differs by more than rounding."""
    found = by_check(check_engines(make_settings(precision="exact"), os.environ))
    assert {finding.status for finding in found.values()} == {Status.OK}
    assert "upscaled-x2-faithful by torch float32" in found["engine x2"].found
    for scale in (2, 4):
        text = found[f"golden x{scale}"].found
        assert text.startswith("exactly") or float(text.split()[0]) > 50
    assert "nothing tried to connect" in found["no network"].found


@pytest.mark.slow
def test_an_unmeasured_model_is_a_warning_and_nothing_is_written(
    make_settings: MakeSettings,
) -> None:
    settings = make_settings(precision="auto")
    found = by_check(check_engines(settings, os.environ))
    assert found["engine x4"].status is Status.WARNING
    assert "nothing is measured yet" in found["engine x4"].found
    assert found["golden x4"].status is Status.OK
    assert not settings.data_dir.exists()


def test_an_engine_that_is_missing_is_a_failure(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    broken = tmp_path / "torch" / "__init__.py"
    broken.parent.mkdir()
    broken.write_text("raise ImportError('libtorch_cpu.so: cannot open shared object file')")
    found = by_check(check_engines(make_settings(), {**os.environ, "PYTHONPATH": str(tmp_path)}))
    assert found["engine"].status is Status.FAILURE
    assert "libtorch_cpu.so" in found["engine"].found
    assert "install upscaled again" in found["engine"].advice


@pytest.mark.slow
@pytest.mark.parametrize("model", ["realesrgan-x4plus", "realesrgan-x4plus-anime-6b"])
def test_official_models_make_their_golden_pictures(
    make_settings: MakeSettings, model: str
) -> None:
    settings = make_settings(precision="exact", model_x2=model, model_x4=model)
    store = ModelStore(settings.models_dir)
    packaged = store.find(model).packaged
    assert packaged is not None
    if not is_packaged_here(packaged):
        pytest.skip(f"{WEIGHTS_PACKAGE} is not installed (the extra `realesrgan`)")
    install_packaged(packaged, store)
    found = by_check(check_engines(settings, os.environ))
    for scale in (2, 4):
        text = found[f"golden x{scale}"].found
        assert found[f"golden x{scale}"].status is Status.OK
        assert text.startswith("exactly") or float(text.split()[0]) > 50


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("import os; os.kill(os.getpid(), 4)", "ended (killed by SIGILL)"),
        ("import sys; sys.exit('no room')", "ended (exit status 1): no room"),
        ("import time; time.sleep(60)", "did not end within 1 s"),
    ],
)
def test_a_crash_of_the_process_is_a_failure(
    program: str, said: str, make_settings: MakeSettings
) -> None:
    command = (sys.executable, "-c", program)
    (finding,) = check_engines(make_settings(), os.environ, command, within_s=1)
    assert finding.status is Status.FAILURE
    assert said in finding.found


def test_findings_reported_before_a_crash_are_kept(make_settings: MakeSettings) -> None:
    reported = [ok("GPU", "none"), ok("engine x4", "m by l")]
    lines = b"".join(dump_finding(finding) for finding in reported) + b'{"check": "hal'
    program = (
        f"import os; os.write(1, {lines!r}); os.write(2, b'Last words'); os.kill(os.getpid(), 9)"
    )
    *first, last = check_engines(make_settings(), os.environ, (sys.executable, "-c", program))
    assert first == reported
    assert (last.check, last.status) == ("golden picture", Status.FAILURE)
    assert "SIGKILL): Last words" in last.found


@pytest.mark.parametrize(
    ("is_chosen", "unsettled", "status", "words"),
    [
        (True, "", Status.OK, "windows of 1 px; p"),
        (True, "the machine was busy", Status.WARNING, "not settled: the machine was busy"),
        (False, "", Status.WARNING, "nothing is measured yet"),
    ],
)
def test_a_choice_that_is_not_settled_is_warned_of_and_the_command_named(
    is_chosen: bool, unsettled: str, status: Status, words: str
) -> None:
    info = EngineInfo(SPEC, "l", window_px=1, shape_step_px=1, proof="p")
    finding = describe_engine(4, info, unsettled, is_chosen=is_chosen)
    assert (finding.check, finding.status) == ("engine x4", status)
    assert words in finding.found
    assert ("`upscaled tune upscaled-x4`" in finding.advice) == (status is Status.WARNING)


@pytest.mark.parametrize(
    ("model", "psnr_db", "is_plausible", "status"),
    [
        ("upscaled-x4", 38.0, True, Status.OK),
        ("upscaled-x4", 37.9, True, Status.FAILURE),
        ("upscaled-x4-faithful", 37.9, True, Status.FAILURE),
        ("realesrgan-x4plus", 30.0, True, Status.OK),
        ("realesrgan-x4plus", 29.9, True, Status.FAILURE),
        ("m", None, True, Status.OK),
        ("m", None, False, Status.FAILURE),
        ("m", 60.0, False, Status.FAILURE),
    ],
)
def test_an_image_passes_or_fails_on_both_sides_of_its_limit(
    model: str, psnr_db: float | None, is_plausible: bool, status: Status
) -> None:
    result = Result(b"", "image/png", 1, 1, model, "l", Timings(0.1, 0.1, 0.1, 0.1))
    finding = describe_result(4, result, psnr_db, is_plausible=is_plausible)
    assert (finding.check, finding.status) == ("golden x4", status)


@pytest.mark.parametrize(
    ("names", "device", "status"),
    [
        (["H100, 80 GiB"], "auto", Status.OK),
        (["H100, 80 GiB"], "cpu", Status.WARNING),
        ([], "auto", Status.OK),
    ],
)
def test_the_gpus_of_the_machine_are_reported(
    names: list[str], device: str, status: Status, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("upscaled.doctor.golden_run._NVIDIA", tmp_path / "absent")
    assert describe_gpus(names, "2", "", device).status is status


@pytest.mark.parametrize("precision", ["auto", "exact"])
def test_a_missing_openvino_is_a_warning_unless_float32_is_configured(
    make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    import_openvino.cache_clear()
    monkeypatch.setitem(sys.modules, "openvino", None)
    found = by_check(list(describe_devices(make_settings(precision=precision))))
    assert ("OpenVINO" in found) == (precision == "auto")
    assert all(finding.status is Status.WARNING for finding in found.values() if finding.advice)


@pytest.mark.parametrize(
    ("targets", "lost_packets", "said"),
    [(["192.0.2.1:80"], 2, "192.0.2.1:80"), ([], 2, "2 packets from outside Python")],
)
def test_an_attempt_to_connect_is_a_warning(
    targets: list[str], lost_packets: int, said: str
) -> None:
    finding = describe_connections(targets, lost_packets, is_isolated=True)
    assert finding.status is Status.WARNING
    assert said in finding.found


def test_the_advice_for_a_wrong_setting_is_to_correct_it() -> None:
    assert "correct the setting" in advise("UPSCALED_DEVICE='cuda': none")


def test_a_library_that_calls_out_while_the_engines_load_is_named(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    """Planted as a site hook; in the namespace its packet goes nowhere."""
    if os.geteuid():
        pytest.skip("without a namespace the attempt would be sent: needs root")
    (tmp_path / "sitecustomize.py").write_text(
        "import socket, sys\n"
        "class Caller:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'torch':\n"
        "            plain = socket.socket()\n"
        "            plain.settimeout(1)\n"
        "            plain.connect_ex(('192.0.2.1', 80))\n"
        "            plain.close()\n"
        "            raise ImportError('that is enough')\n"
        "sys.meta_path.insert(0, Caller())\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    found = by_check(check_engines(make_settings(), environment))
    assert found["no network"].status is Status.WARNING
    assert "tried to reach 192.0.2.1:80" in found["no network"].found
