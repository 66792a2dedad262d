"""What a command prints, where nothing reads it."""

import fcntl
import logging
import os
import sys

import pytest

from upscaled.cli.console import announce


def test_a_line_of_the_start_is_dropped_where_nothing_reads_standard_output(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As in `upscaled serve 2>&1 | collector`, whose pipe the log has filled."""
    monkeypatch.setattr("upscaled.cli.console.ROOM_WAIT_S", 0.01)
    reading, writing = os.pipe()
    capacity = fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    os.write(writing, bytes(capacity))
    with open(reading, "rb"), open(writing, "w") as stdout, caplog.at_level(logging.WARNING):
        monkeypatch.setattr(sys, "stdout", stdout)
        announce("ready")
        announce("still ready")
        sys.stdout.close()
    assert [getattr(record, "event", None) for record in caplog.records] == ["stdout_unusable"]
    assert "nothing reads it" in caplog.text
