import pytest

from upscaled.config import load_settings
from upscaled.doctor.environment import check_settings, read_settings
from upscaled.doctor.finding import Status


def test_valid_settings_are_named_without_their_values() -> None:
    environment = {"UPSCALED_WORKERS": "2", "UPSCALED_DATABASE_URL": "postgresql://u:geheim@h/d"}
    (finding,) = check_settings(environment)
    assert finding.status is Status.OK
    assert "DATABASE_URL, WORKERS" in finding.found
    assert "geheim" not in finding.found
    assert read_settings(environment)[0].workers == 2


def test_each_wrong_variable_is_a_failure_and_the_others_hold() -> None:
    environment = {
        "UPSCALED_PUBLIC_BASE_URL": "upscale.example.com",
        "UPSCALED_WORKRS": "3",
        "UPSCALED_THREADS": "2",
        "PATH": "/bin",
    }
    findings = check_settings(environment)
    assert [finding.status for finding in findings] == [Status.FAILURE] * 2
    assert "UPSCALED_PUBLIC_BASE_URL='upscale.example.com': must be an http" in findings[0].found
    assert "did you mean UPSCALED_WORKERS?" in findings[1].found
    settings, _ = read_settings(environment)
    assert (settings.threads, settings.workers) == (2, 1)


def test_a_variable_that_is_ignored_but_near_a_settings_name_is_a_warning() -> None:
    first, second = check_settings({"UPSCALE_WORKERS": "3", "UPSCALED_THREADS": "2"})
    assert first.found == "1 set, all valid: THREADS"
    assert second.status is Status.WARNING
    assert second.found == "UPSCALE_WORKERS is no setting, and is ignored"
    assert second.advice == "did you mean UPSCALED_WORKERS?"


def test_without_a_home_folder_all_but_the_data_folder_is_valid(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("os.getuid", lambda: 2**31 - 7)  # no entry of a user says it either
    environment = {"UPSCALED_DATA_DIR": "/data", "UPSCALED_THREADS": "2"}
    assert check_settings(environment)[0].found == "2 set, all valid: DATA_DIR, THREADS"
    assert read_settings(environment)[0].threads == 2


def test_a_password_in_a_misspelt_variable_is_hidden() -> None:
    (finding,) = check_settings({"UPSCALED_DATABSE_URL": "postgresql://u:ge@heim@h/d"})
    assert "://u:***@h/d" in finding.found
    assert "heim" not in finding.found


def test_nothing_set_is_every_default() -> None:
    environment = {"UPSCALED_WORKERS": ""}
    assert read_settings(environment)[0] == load_settings({})
    assert check_settings(environment)[0].found == "all at their defaults"
