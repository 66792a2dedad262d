import io
import json
import sys

import pytest

from upscaled.batch.journal import Record
from upscaled.batch.outcome import Kind, Outcome
from upscaled.cli.batch_report import BatchReport

RECORD = Record(b"", b"", b"", 1, 0, width_px=1024, height_px=1024, model="m")
DONE = Outcome(
    "/in/a.png", Kind.UPSCALED, "/out/a-x4.jpg", RECORD, source_px=(256, 256),
    seconds=0.5,
)  # fmt: skip
FAILED = Outcome("/in/b.png", Kind.FAILED, error_code="malformed_image", error="Bad")
PASSED = Outcome("/in/notes.txt", Kind.PASSED_OVER)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def report(*, is_json: bool) -> None:
    reporting = BatchReport(is_json=is_json)
    with reporting:
        reporting.expect(3)
        for outcome in (DONE, FAILED, PASSED):
            reporting.on_part(outcome.source, 0.5)
            reporting.add(outcome)
    reporting.conclude()


def test_without_a_terminal_each_image_is_a_line_of_json(
    capsys: pytest.CaptureFixture[str],
) -> None:
    report(is_json=False)
    output = capsys.readouterr()
    *images, summary = [json.loads(line) for line in output.out.splitlines()]
    assert [line["source"] for line in images] == ["/in/a.png", "/in/b.png"]
    assert images[0]["error_code"] is images[1]["result"] is None
    assert (images[1]["outcome"], images[1]["error_code"]) == ("failed", "malformed_image")
    assert summary["summary"]["passed_over"] == summary["summary"]["failed"] == 1
    assert output.err.startswith("upscaled: /in/b.png: Bad\n1 upscaled, 1 passed over")


def test_a_terminal_gets_a_bar_with_throughput_and_time_left_below_the_lines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    out, err = Terminal(), Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    report(is_json=False)
    text = out.getvalue()
    assert "images/s" in text
    assert "MP/s" in text
    assert "left:" in text
    assert "3/3" in text
    assert "/out/a-x4.jpg  1024 x 1024 px  by m in 0.5 s" in text
    assert "upscaled: /in/b.png: Bad" in text
    assert "1 upscaled" in err.getvalue()
    assert "{" not in text


def test_json_on_a_terminal_has_no_progress_bar(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, err = Terminal(), Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    report(is_json=True)
    assert [json.loads(line) for line in out.getvalue().splitlines()]
    assert "\x1b" not in out.getvalue() + err.getvalue()


@pytest.mark.parametrize("is_terminal", [True, False])
def test_names_cannot_steer_a_terminal_nor_stop_the_report(
    monkeypatch: pytest.MonkeyPatch, is_terminal: bool
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    out, err = [
        io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2)
    ]
    for stream in (out, err):
        monkeypatch.setattr(stream, "isatty", lambda: is_terminal, raising=False)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    path = "/in/\x1b[31m\udce9.png"
    with BatchReport(is_json=False) as reporting:
        reporting.add(Outcome(path, Kind.FAILED, error=f"{path} is there"))
        reporting.add(Outcome(path, Kind.SKIPPED, path))
    output = out.buffer.getvalue() + err.buffer.getvalue()
    assert "/in/\N{REPLACEMENT CHARACTER}[31m\N{REPLACEMENT CHARACTER}.png".encode() in output
    assert b"\x1b[31m\xef" not in output


def test_json_keeps_names_that_are_no_text() -> None:
    line = json.dumps(Outcome("/in/caf\udce9.png", Kind.FAILED).to_json())
    assert line.isascii()
    assert json.loads(line)["source"].encode(errors="surrogateescape") == b"/in/caf\xe9.png"
