"""A copy of the shell scripts beside a Python that records its command lines."""

import os
import shutil
import stat
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHELL_TOOLS = (
    *(
        "bash",
        "basename",
        "cat",
        "cmp",
        "dirname",
        "env",
        "getconf",
        "grep",
        "mkdir",
        "rm",
        "uname",
    ),
)

# Stands for every Python: `-m venv` makes a folder with itself in it; $REFUSES is an extended
# regular expression of the commands that it fails.
_RECORDING_PYTHON = """#!{bash}
printf '%s\\n' "$*" >>"{record}"
if [[ -n ${{REFUSES:-}} && "$*" =~ $REFUSES ]]; then exit 1; fi
if [[ ${{1:-}} == --version ]]; then echo 'Python 3.11.99'; fi
if [[ "${{1:-}} ${{2:-}}" == '-m venv' ]]; then
    mkdir -p "$3/bin"
    cat "$0" >"$3/bin/python"
    {chmod} +x "$3/bin/python"
fi
"""


@dataclass
class Scripts:
    """The copy: `root` is its folder, `bin_dir` all that its PATH holds."""

    root: Path
    bin_dir: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def record(self) -> Path:
        return self.root / "record"

    def add_python(self, name: str) -> None:
        program = self.bin_dir / name
        text = _RECORDING_PYTHON.format(
            bash=self.bin_dir / "bash", record=self.record, chmod=shutil.which("chmod")
        )
        program.write_text(text)
        program.chmod(program.stat().st_mode | stat.S_IXUSR)

    def run(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.root / "scripts" / name), *arguments],
            env={"PATH": str(self.bin_dir)} | self.environment,
            cwd="/",
            capture_output=True,
            text=True,
            timeout=20,
        )

    def calls(self) -> list[str]:
        """List Python's command lines since the last call, but for queries about itself."""
        lines = self.record.read_text().splitlines() if self.record.exists() else []
        self.record.unlink(missing_ok=True)
        return [line for line in lines if line and not line.startswith(("-c", "--version"))]


@pytest.fixture
def scripts(tmp_path: Path) -> Scripts:
    root, bin_dir = tmp_path / "a clone", tmp_path / "bin"
    (root / "scripts").mkdir(parents=True)
    bin_dir.mkdir()
    for name in ("setup", "torch_sources", "test", "check", "quickstart", "first_photo.py"):
        shutil.copy(ROOT / "scripts" / name, root / "scripts")
    for path in (*ROOT.glob("requirements*.lock"), ROOT / "pyproject.toml"):
        shutil.copy(path, root)
    for name in SHELL_TOOLS:
        found = shutil.which(name)
        assert found is not None
        os.symlink(found, bin_dir / name)
    return Scripts(root, bin_dir)
