import email
import io
import os
import shlex
import socket
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest
from PIL import Image

from scripts import first_photo
from scripts.first_photo import QuickstartError
from tests.listening import free_port
from upscaled.config import Settings, load_settings
from upscaled.image.types import Header
from upscaled.state import open_state


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of a data folder that lies elsewhere than in the clone."""
    monkeypatch.setattr(first_photo, "DATA_DIR", tmp_path / ".upscaled")
    monkeypatch.setenv("UPSCALED_PRECISION", "exact")  # a quick start, also where it is the first
    return load_settings({}, data_dir=tmp_path / ".upscaled")


def _info(width_px: int, height_px: int) -> Header:
    return Header("JPEG", width_px, height_px, has_alpha=False)


@pytest.mark.parametrize(
    ("width_px", "height_px", "scale"),
    [(451, 300, 4), (1500, 64, 4), (1501, 64, 2), (64, 1501, 2), (3000, 3000, 2)],
)
def test_the_scale_is_the_largest_the_limits_allow(
    settings: Settings, width_px: int, height_px: int, scale: int
) -> None:
    assert first_photo.choose_scale(_info(width_px, height_px), settings) == scale


def test_for_a_photo_beyond_every_limit_the_limits_are_printed(settings: Settings) -> None:
    with pytest.raises(QuickstartError, match=r"3001 px.* 1500 px at scale 4 and 3000 px"):
        first_photo.choose_scale(_info(200, 3001), settings)


def test_the_sample_is_a_small_plain_jpeg() -> None:
    source, info = first_photo.read_photo(first_photo.SAMPLE)
    assert (info.format, info.width_px, info.height_px) == ("JPEG", 451, 300)
    assert len(source) < 150_000
    with Image.open(io.BytesIO(source)) as sample:
        assert not sample.getexif()
        assert not {"exif", "icc_profile", "xmp", "comment"} & set(sample.info)


def test_a_photo_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(QuickstartError, match=r"cannot read .*holiday\.jpg: No such file"):
        first_photo.read_photo(tmp_path / "holiday.jpg")


def test_a_file_that_is_no_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(QuickstartError, match=r"notes\.txt: .*image"):
        first_photo.read_photo(tmp_path / "notes.txt")


def test_a_key_is_made_once_and_kept_from_others(settings: Settings) -> None:
    secret = first_photo.make_key(settings)
    assert first_photo.make_key(settings) == secret
    assert (settings.data_dir / "key").stat().st_mode & 0o077 == 0
    with open_state(settings) as state:
        assert state.keys.verify(secret) is not None


def test_a_lost_key_is_replaced(settings: Settings) -> None:
    lost = first_photo.make_key(settings)
    (settings.data_dir / "key").unlink()
    secret = first_photo.make_key(settings)
    with open_state(settings) as state:
        assert state.keys.verify(lost) is None
        assert state.keys.verify(secret) is not None


def test_a_new_key_is_made_where_the_database_is_missing(settings: Settings) -> None:
    old = first_photo.make_key(settings)
    for file in settings.data_dir.glob("*.sqlite3*"):
        file.unlink()
    assert first_photo.make_key(settings) != old


def test_a_port_in_use_is_replaced_by_a_free_one() -> None:
    with socket.create_server((first_photo.HOST, 0)) as taken:
        port = int(taken.getsockname()[1])
        assert first_photo.find_port(port) != port
    assert first_photo.find_port(port) == port


def test_the_service_listens_on_the_port_of_the_settings(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(port: int) -> NoReturn:
        raise QuickstartError(f"port {port}")

    port = free_port()
    monkeypatch.setenv("UPSCALED_PORT", str(port))
    monkeypatch.setattr(first_photo, "serving", refuse)
    with pytest.raises(QuickstartError, match=f"port {port}"):
        first_photo.run(first_photo.SAMPLE, is_once=True)


def test_the_form_holds_the_photo_and_the_scale() -> None:
    body, content_type = first_photo.encode_form(b"\xff\xd8 bytes \r\n--", 'a "b".jpg', 2)
    message = email.message_from_bytes(f"Content-Type: {content_type}\r\n\r\n".encode() + body)
    scale, image = list(message.walk())[1:]
    assert scale.get_payload() == "2"
    assert image.get_payload(decode=True) == b"\xff\xd8 bytes \r\n--"
    assert image.get_filename() == "a _b_.jpg"


def test_the_curl_line_is_valid_shell() -> None:
    words = shlex.split(first_photo.describe_curl(4, "secret", 8000))
    assert words[:2] == ["curl", "http://127.0.0.1:8000/v1/upscale"]
    assert {"X-API-KEY: secret", "image=@photo.jpg", "scale=4"} <= set(words)


def test_the_doctor_is_named_for_this_installation_and_not_for_the_default_one() -> None:
    words = shlex.split(first_photo.describe_doctor(8001))
    assert words[:2] == ["env", f"UPSCALED_DATA_DIR={first_photo.DATA_DIR}"]
    assert words[-3:] == ["doctor", "--port", "8001"]


@pytest.mark.parametrize(("format_name", "suffix"), [("JPEG", "jpg"), ("PNG", "png")])
def test_the_result_is_saved_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format_name: str, suffix: str
) -> None:
    monkeypatch.chdir(tmp_path)
    file = io.BytesIO()
    Image.new("RGB", (80, 70)).save(file, format_name)
    path, info = first_photo.save(file.getvalue(), Path("elsewhere/my cat.webp"))
    assert path == Path(f"result-my cat.{suffix}")
    assert (tmp_path / path).read_bytes() == file.getvalue()
    assert (info.width_px, info.height_px) == (80, 70)


def test_a_folder_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "result-cat.jpg").mkdir()
    file = io.BytesIO()
    Image.new("RGB", (80, 70)).save(file, "JPEG")
    with pytest.raises(QuickstartError, match=r"cannot write .*result-cat\.jpg"):
        first_photo.save(file.getvalue(), Path("cat.jpg"))


def test_a_service_that_does_not_start_is_reported_with_its_log(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.data_dir.mkdir()
    monkeypatch.setenv("UPSCALED_DEVICE", "abacus")
    with (
        pytest.raises(QuickstartError, match=r"(?s)does not start.*UPSCALED_DEVICE='abacus'"),
        first_photo.serving(first_photo.find_port(0)),
    ):
        pytest.fail("it was taken for ready")


def test_a_slow_start_is_waited_for_with_a_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = iter([False, False, True])
    monkeypatch.setattr(first_photo, "is_ready", lambda _port: next(answers))
    monkeypatch.setattr(first_photo, "FIRST_NOTE_S", 0.1)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        first_photo.wait_until_ready(process, port=8000)
        process.communicate(b"\n")
    assert capsys.readouterr().out.startswith("Preparing the models for this computer: 0 s so far")


def test_lines_of_requests_are_left_out_of_the_end_of_the_log(settings: Settings) -> None:
    settings.data_dir.mkdir()
    asked = (
        "2026-11-26T01:49:15.323Z INFO upscaled.api.telemetry.access_log: GET /readyz status=503"
    )
    lines = ["worker 0 cannot start", *[asked] * 50]
    (settings.data_dir / "service.log").write_text(os.linesep.join(lines))
    assert first_photo.read_log_end().splitlines()[1:] == ["worker 0 cannot start"]
