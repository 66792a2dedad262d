"""Syntax of the pages' blocks, also of those that cannot be run here."""

import configparser
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.docs.blocks import PAGES, Block, read_all
from tests.service.cli.invoking import invoke

# `text` is what is shown, or a command's form with [OPTIONAL] parts: nothing to run.
LANGUAGES = {"bash", "caddy", "ini", "javascript", "json", "nginx", "python", "text"}


def test_every_block_names_its_language() -> None:
    blocks = read_all()
    assert len(blocks) > 20
    assert {block.language for block in blocks} <= LANGUAGES
    fences = sum(page.read_text().count("\n```") for page in PAGES)
    assert fences == 2 * len(blocks)


@pytest.mark.parametrize("block", read_all("bash"), ids=str)
def test_bash_parses(block: Block) -> None:
    done = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("block", read_all("python"), ids=str)
def test_python_compiles(block: Block) -> None:
    compile(block.text, str(block), "exec")


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node to parse it")
@pytest.mark.parametrize("block", read_all("javascript"), ids=str)
def test_javascript_parses(block: Block, tmp_path: Path) -> None:
    file = tmp_path / "block.mjs"
    file.write_text(block.text)
    subprocess.run(["node", "--check", str(file)], check=True, capture_output=True)


@pytest.mark.parametrize("block", read_all("json"), ids=str)
def test_json_parses(block: Block) -> None:
    assert json.loads(block.text)


@pytest.mark.parametrize("block", read_all("ini"), ids=str)
def test_units_and_settings_parse(block: Block) -> None:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.read_string(block.text if block.text.startswith("[") else f"[settings]\n{block.text}")
    assert all(len(parser[section]) for section in parser.sections())


UNITS = {
    "upscaled.service": "upscaled: image upscaling over HTTP",
    "upscaled@.service": "upscaled on port %i",
    "upscaled.target": "upscaled: all front ends of this machine",
    "upscaled-ray-head.service": "upscaled: head of the Ray cluster",
    "upscaled-ray-node.service": "upscaled: node of the Ray cluster",
    "upscaled-front.service": "upscaled: front end of the Ray cluster",
}


def test_every_unit_of_the_pages_is_tried() -> None:
    units = [block for block in read_all("ini") if "[Unit]" in block.text]
    assert len(units) == len(UNITS)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
@pytest.mark.parametrize("name", UNITS)
def test_systemd_accepts_the_unit(name: str, tmp_path: Path) -> None:
    for block in read_all("ini"):
        for each, description in UNITS.items():
            if f"Description={description}\n" in block.text:
                program = shutil.which("true") or "/bin/true"
                text = re.sub(r"/opt/upscaled/bin/(upscaled|ray)\b", program, block.text)
                (tmp_path / each).write_text(text)
    unit = tmp_path / name.replace("@.", "@8001.")
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True)
    assert "upscaled" not in done.stderr, done.stderr


@pytest.mark.parametrize(
    "block", [block for block in read_all("ini") if "ExecStart=" in block.text], ids=str
)
def test_a_unit_starts_again_until_it_can_and_outlives_a_process_killed_for_memory(
    block: Block,
) -> None:
    """By default systemd gives up after five starts within 10 s, and stops all of such a unit."""
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.read_string(block.text)
    service = parser["Service"]
    assert service["Restart"] in ("on-failure", "always")
    assert float(service["RestartSec"]) > 10 / 5
    assert service["OOMPolicy"] == "continue"


def _commands(block: Block) -> list[list[str]]:
    """Return the words after each `upscaled` of a block, up to the end of the command."""
    commands = []
    for line in block.text.replace("\\\n", " ").splitlines():
        words = list(shlex.shlex(line, posix=True, punctuation_chars=True))
        for at, word in enumerate(words):
            if word.rpartition("/")[2] == "upscaled" and (at == 0 or _may_precede(words[at - 1])):
                rest = words[at + 1 :]
                end = next((n for n, each in enumerate(rest) if set(each) <= set("|&;><()")), None)
                commands.append(rest[:end])
    return commands


def _may_precede(word: str) -> bool:
    return "=" in word or word in ("env", "&&", "|", ")") or word.startswith("upscaled-")


@pytest.mark.parametrize(
    "block", [block for block in read_all("bash") if "upscaled " in block.text], ids=str
)
def test_every_command_line_is_accepted_by_the_program(block: Block) -> None:
    """Options are parsed before the last one is heeded, and nothing is run."""
    for words in _commands(block):
        done = invoke(*words, "--help")
        assert done.exit_code == 0, done.output
