"""The air gap's page and the programs it names: the same options, none left out, none made up."""

import re
import subprocess
import sys

from tests.docs.blocks import DOCS, ROOT

PAGE = (DOCS / "airgap.md").read_text()
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")


def _help(*command: str) -> set[str]:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return set(OPTION.findall(done.stdout)) - {"--help"}


def _used(program: str) -> set[str]:
    lines = [line for line in PAGE.splitlines() if line.removeprefix("sudo ").startswith(program)]
    assert lines
    return {option for line in lines for option in OPTION.findall(line)}


def test_every_option_of_the_bundle_is_on_the_page() -> None:
    options = _help(sys.executable, "-m", "scripts.bundling.command", "-h")
    assert options - set(OPTION.findall(PAGE)) == set()
    assert _used("scripts/bundle") <= options


def test_the_installer_accepts_the_commands_of_the_page() -> None:
    assert _used("./install") <= _help("sh", "scripts/bundling/install", "--help")
