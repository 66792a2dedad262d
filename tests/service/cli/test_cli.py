import os
import pty
import re
import select
import subprocess
import sys
from itertools import pairwise

import pytest

import upscaled
from tests.running import REPOSITORY_DIR, UPSCALED, clean_environment, run_upscaled
from tests.service.cli.invoking import invoke
from upscaled.cli import COMMANDS


def test_the_version_is_printed() -> None:
    printed = run_upscaled(clean_environment(), "--version").stdout
    assert printed == f"upscaled {upscaled.__version__}\n"


def test_the_version_needs_no_module_of_a_command() -> None:
    program = (
        "import sys, upscaled.cli\n"
        "sys.argv = ['upscaled', '--version']\n"
        "try:\n    upscaled.cli.main()\n"
        "finally:\n    print([name for name in sys.modules if name.startswith('upscaled.cli.')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert done.stdout.splitlines()[1:] == ["[]"]


def test_every_command_is_in_the_help() -> None:
    text = invoke("--help").stdout
    for command in COMMANDS:
        assert f" {command} " in text


@pytest.mark.parametrize(
    "command",
    ["image", "watch", "doctor", "tune", "usage", "mcp", "keys set", "models fetch", "models try"],
)
def test_the_help_fills_the_lines_of_a_narrow_terminal(command: str) -> None:
    width = 60
    env = {"COLUMNS": str(width), "TERMINAL_WIDTH": str(width)}
    text = invoke(*command.split(), "--help", env=env).stdout
    prose = [line.strip() for line in text.partition("╭")[0].partition("Usage:")[2].splitlines()]
    for line, following in pairwise(prose[1:]):
        first_word = following.partition(" ")[0]
        may_end = not line or not following or line.endswith(":")
        assert may_end or len(line) + 1 + len(first_word) > width - 2, f"{line!r} {following!r}"


@pytest.mark.parametrize(
    "line",
    [
        "keys create NAME",
        "keys revoke NAME",
        "credits add NAME N",
        "credits show NAME",
        "image FILES...",
        "models fetch NAME",
        "models add NAME FILE...",
    ],
)
def test_the_help_names_arguments_as_the_readme_does(line: str) -> None:
    words = line.split()
    command = [word for word in words if word.islower()]
    done = invoke(*command, "--help")
    usage = next(text for text in done.stdout.splitlines() if "Usage:" in text)
    shown = usage.replace("[OPTIONS] ", "").translate(str.maketrans("", "", "{}"))
    assert shown.strip() == f"Usage: upscaled {line}"


@pytest.mark.parametrize(
    ("modules", "heavy"),
    [
        ("upscaled.cli, upscaled.cli.server", {"torch", "obstore"}),
        ("upscaled.cli", {"torch", "numpy", "cv2", "uvicorn", "fastapi"}),
    ],
)
def test_the_command_line_loads_no_heavy_module(modules: str, heavy: set[str]) -> None:
    program = (
        f"import {modules}, sys; upscaled.cli.build_app(); "
        f"sys.exit(bool({heavy} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_wrong_setting_is_named_with_status_2() -> None:
    environment = clean_environment(UPSCALED_WORKERS="many")
    ended = run_upscaled(environment, "config", is_checked=False)
    assert ended.returncode == 2
    assert "UPSCALED_WORKERS='many'" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("command", "is_buffered"),
    [
        ("--version", True),
        ("--help", False),
        pytest.param("config", True, marks=pytest.mark.slow),
        pytest.param("config", False, marks=pytest.mark.slow),
    ],
)
def test_a_full_output_is_one_line_with_status_1(command: str, is_buffered: bool) -> None:
    buffering = {} if is_buffered else {"PYTHONUNBUFFERED": "1"}
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [*UPSCALED, command],
            cwd=REPOSITORY_DIR,
            env={**clean_environment(), "PYTHONUNBUFFERED": "", **buffering},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert ended.returncode == 1
    assert ended.stderr == "upscaled: standard output: No space left on device\n"


def test_every_module_of_a_command_is_built_into_the_command_line() -> None:
    folder = REPOSITORY_DIR / "service" / "upscaled" / "cli"
    command = re.compile(r"^(def run\(|commands = typer)", re.MULTILINE)
    modules = {path.stem for path in folder.glob("*.py") if command.search(path.read_text())}
    assert modules == set(COMMANDS)


def test_an_unknown_command_is_an_error() -> None:
    assert invoke("upscale").exit_code == 2


def run_on_terminal(lines: list[str]) -> list[str]:
    """What stands on the terminal of command lines whose commands would be imported next."""
    program = (
        "import sys, upscaled.cli\n"
        "heavy = {'torch', 'cv2', 'numpy', 'sqlalchemy'}\n"
        "upscaled.cli.build_app = lambda *_: sys.exit(len(heavy & set(sys.modules)))\n"
        "for line in sys.argv[1:]:\n"
        "    sys.argv[1:] = line.split()\n"
        "    try:\n"
        "        upscaled.cli.main()\n"
        "    except SystemExit as end:\n"
        "        assert not end.code, (line, end.code)\n"
        "    print('---', file=sys.stderr, flush=True)\n"
    )
    controller, terminal = pty.openpty()
    try:
        subprocess.run([sys.executable, "-c", program, *lines], check=True, stderr=terminal)
        shown = os.read(controller, 4000).decode() if _is_readable(controller) else ""
        return [each.strip() for each in shown.split("---")[:-1]]
    finally:
        os.close(terminal)
        os.close(controller)


def _is_readable(descriptor: int) -> bool:
    return bool(select.select([descriptor], [], [], 0)[0])


def test_commands_with_a_slow_start_print_a_notice_on_a_terminal_before_loading() -> None:
    lines = ["image a.png", "watch in out", "tune", "doctor", "models try m p", "models quantise m"]
    shown = run_on_terminal(lines)
    assert len(shown) == len(lines)
    assert all(each.startswith("upscaled: loading") for each in shown)


def test_commands_that_answer_at_once_print_nothing_before() -> None:
    lines = ["image --help", "models list", "keys list", "config", ""]
    assert run_on_terminal(lines) == [""] * len(lines)


def test_a_slow_start_is_silent_where_there_is_no_terminal() -> None:
    ended = run_upscaled(clean_environment(), "image", is_checked=False)
    assert (ended.returncode, "loading" in ended.stderr) == (2, False)
