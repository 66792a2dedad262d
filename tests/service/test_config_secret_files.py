"""Secrets that are given by a file, under the setting's name and `_FILE`."""

import os
from pathlib import Path

import pytest

from tests.running import clean_environment, run_upscaled
from upscaled.config import SettingsError, load_settings
from upscaled.doctor.environment import check_settings
from upscaled.doctor.finding import Status

URL = "postgresql://upscaled:geheim@db.internal/upscaled"
NAME = "UPSCALED_DATABASE_URL_FILE"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "database-url"


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n"])
def test_the_setting_is_what_the_file_holds_without_its_line_end(file: Path, end: str) -> None:
    file.write_bytes((URL + end).encode())
    assert load_settings({NAME: str(file)}).database_url == URL


def test_spaces_belong_to_the_secret(file: Path) -> None:
    file.write_text(f" {URL} \n")
    assert load_settings({NAME: str(file)}).database_url == f" {URL} "


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "url").write_text(URL)
    assert load_settings({NAME: "~/url"}).database_url == URL


def test_an_empty_name_of_a_file_is_none() -> None:
    assert load_settings({NAME: ""}).database_url == ""


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file or directory"),
        (b"", "must hold one line"),
        (b"\n", "must hold one line"),
        (b"geheim\ngeheim\n", "must hold one line"),
        (b"geheim\xff\xfe", "holds no text"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_and_not_shown(
    file: Path, content: bytes | None, reason: str
) -> None:
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingsError, match=f"^{NAME}={file}: {reason}") as refused:
        load_settings({NAME: str(file)})
    assert "geheim" not in str(refused.value)


@pytest.mark.parametrize("value", [URL, "sqlite:///x"])
def test_the_setting_and_its_file_are_refused_with_both_names(file: Path, value: str) -> None:
    file.write_text(URL)
    both = {NAME: str(file), "UPSCALED_DATABASE_URL": value}
    with pytest.raises(SettingsError, match=f"^{NAME}={file}: UPSCALED_DATABASE_URL is set too"):
        load_settings(both)
    (finding,) = check_settings(both)
    assert finding.status is Status.FAILURE
    assert "geheim" not in finding.found
    assert load_settings({**both, "UPSCALED_DATABASE_URL": ""}).database_url == URL


def test_a_misspelt_name_of_a_file_is_guessed() -> None:
    with pytest.raises(SettingsError, match=f"did you mean {NAME}[?]"):
        load_settings({"UPSCALED_DATABASE_URL_FIEL": "/x"})


def test_a_start_names_the_missing_file_with_status_2(file: Path) -> None:
    environment = clean_environment(UPSCALED_DATABASE_URL_FILE=str(file))
    ended = run_upscaled(environment, "serve", "--port", "0", is_checked=False)
    assert ended.returncode == 2
    assert ended.stderr == f"upscaled: {NAME}={file}: No such file or directory\n"


@pytest.mark.slow
def test_the_config_command_hides_the_password_in_a_file(file: Path) -> None:
    file.write_text(URL + "\n")
    shown = run_upscaled(clean_environment(UPSCALED_DATABASE_URL_FILE=str(file)), "config").stdout
    assert "postgresql://upscaled:***@db.internal/upscaled" in shown
    assert "geheim" not in shown


def test_a_device_without_an_end_is_refused() -> None:
    with pytest.raises(SettingsError, match=f"^{NAME}=/dev/zero: is no regular file$"):
        load_settings({NAME: "/dev/zero"})


def test_a_secret_may_be_read_from_a_pipe_of_the_shell() -> None:
    reader, writer = os.pipe()
    os.write(writer, f"{URL}\n".encode())
    os.close(writer)
    try:
        assert load_settings({NAME: f"/dev/fd/{reader}"}).database_url == URL
    finally:
        os.close(reader)
