"""A family is named in its own modules and in two tables: nothing else changes with a new one."""

import ast
from pathlib import Path
from typing import get_args

from upscaled_models.families import Family

PACKAGE = Path(__file__).resolve().parents[3] / "models" / "upscaled_models"
OWN = frozenset({"rrdb", "rrdb_graph", "rrdb_kernel", "compact", "span", "realplksr", "plain"})
"""Modules of one family each, in `families/` and in `networks/`."""


def test_only_two_tables_name_families() -> None:
    folders = (PACKAGE / "families", PACKAGE / "networks")
    own = {path for folder in folders for path in folder.glob("*.py") if path.stem in OWN}
    assert {path.stem for path in own} == OWN
    naming = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if path not in own and _names_a_family(path)
    }
    assert naming == {"families/__init__.py", "networks/table.py"}


def _names_a_family(path: Path) -> bool:
    """Return whether a module imports what is one family's, or has its name as a value."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.ImportFrom(module=str(module), names=names):
                if OWN & {module.rpartition(".")[2], *(each.name for each in names)}:
                    return True
            case ast.Import(names=names):
                if OWN & {each.name.rpartition(".")[2] for each in names}:
                    return True
            case ast.Constant(value=str(text)) if text in get_args(Family):
                return True
    return False
