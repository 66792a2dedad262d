"""Completion of the command line, by the shells themselves."""

import os
import pty
import re
import select
import shlex
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from upscaled.cli import COMMANDS, build_app
from upscaled.cli.command_tree import describe_commands
from upscaled.cli.completion import SHELLS

TREE = describe_commands(build_app())
DEADLINE_S = 60.0


def needs(shell: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(shell) is None, reason=f"there is no {shell} here")


@pytest.fixture
def script(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    path = tmp_path / "script"
    path.write_text(SHELLS[request.param](TREE))
    return path


def complete_in_bash(script: Path, words: list[str]) -> list[str]:
    """What bash offers for the last of the words."""
    program = (
        f"source {script}; COMP_WORDS=({' '.join(map(shlex.quote, words))}); "
        f"COMP_CWORD={len(words) - 1}; _upscaled; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    )
    done = subprocess.run(
        ["bash", "--norc", "-euc", program], check=True, capture_output=True, text=True
    )
    assert done.stderr == ""
    return done.stdout.split()


@needs("bash")
@pytest.mark.parametrize("script", ["bash"], indirect=True)
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("upscaled ima", ["image"]),
        ("upscaled keys re", ["revoke", "rename"]),
        ("upscaled image --scale ", ["2", "4"]),
        ("upscaled image --format = we", ["webp"]),
        ("upscaled image --format = ", ["jpeg", "png", "webp", "avif", "lossless"]),
        ("upscaled image a.png --dry", ["--dry-run"]),
        ("upscaled keys create --cr", ["--credits"]),
        ("upscaled --ver", ["--version"]),
        ("upscaled image pho", []),
        ("upscaled image -o ", []),
        ("upscaled image keys --rate", []),
    ],
)
def test_bash_completes_commands_options_and_their_values(
    script: Path, line: str, offered: list[str]
) -> None:
    assert sorted(complete_in_bash(script, line.split(" "))) == sorted(offered)


@needs("bash")
@pytest.mark.parametrize("script", ["bash"], indirect=True)
def test_bash_offers_every_command(script: Path) -> None:
    assert complete_in_bash(script, ["upscaled", ""]) == [
        command.path[-1] for command in TREE.commands
    ]
    assert {command.path[-1] for command in TREE.commands} == set(COMMANDS)


@needs("fish")
@pytest.mark.parametrize("script", ["fish"], indirect=True)
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("upscaled ima", ["image"]),
        ("upscaled keys re", ["rename", "revoke"]),
        ("upscaled image --scale ", ["2", "4"]),
        ("upscaled image a.png --dry", ["--dry-run"]),
        ("upscaled keys create --cr", ["--credits"]),
    ],
)
def test_fish_completes_commands_options_and_their_values(
    script: Path, tmp_path: Path, line: str, offered: list[str]
) -> None:
    done = subprocess.run(
        ["fish", "--no-config", "-c", f"source {script}; complete -C {shlex.quote(line)}"],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "HOME": str(tmp_path)},
    )
    assert [text.split("\t")[0] for text in done.stdout.splitlines()] == offered


def press_tab_in_zsh(script: Path, line: str, expected: str) -> str:
    """What zsh shows once a line was typed and the key pressed, until `expected` is in it."""
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(script.parent)
        os.execvpe("zsh", ["zsh", "-f", "-i"], {**os.environ, "TERM": "dumb"})
    try:
        setup = f"PS1= ; autoload -Uz compinit; compinit -D; source {script}; echo rea''dy\n"
        os.write(terminal, setup.encode())
        _read_until(terminal, "ready")
        os.write(terminal, f"{line}\t".encode())
        return _read_until(terminal, expected)
    finally:
        os.close(terminal)
        os.waitpid(child, 0)


def _read_until(terminal: int, expected: str) -> str:
    shown = b""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\x07", "", shown.decode(errors="replace"))
        if expected in text:
            return text
        left_s = deadline - time.monotonic()
        assert select.select([terminal], [], [], max(0, left_s))[0], f"zsh shows {text!r}"
        shown += os.read(terminal, 65_536)


@needs("zsh")
@pytest.mark.parametrize("script", ["zsh"], indirect=True)
@pytest.mark.parametrize(
    ("line", "shown"),
    [
        pytest.param("upscaled ima", "upscaled image ", marks=pytest.mark.slow),
        pytest.param("upscaled keys rev", "upscaled keys revoke ", marks=pytest.mark.slow),
        ("upscaled image --dry", "upscaled image --dry-run "),
        ("upscaled image --format we", "upscaled image --format webp "),
        ("upscaled webhooks ", "list   -- Print the webhooks"),
    ],
)
def test_zsh_completes_commands_options_and_their_values(
    script: Path, line: str, shown: str
) -> None:
    assert shown in press_tab_in_zsh(script, line, shown)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_command_prints_the_script(shell: str) -> None:
    done = CliRunner().invoke(build_app(), ["completion", shell])
    assert (done.exit_code, done.stdout) == (0, SHELLS[shell](TREE))


def test_another_shell_is_a_usage_error() -> None:
    done = CliRunner().invoke(build_app(), ["completion", "tcsh"])
    assert (done.exit_code, "must be one of bash, zsh, fish" in done.stderr) == (2, True)
