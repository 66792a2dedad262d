"""The code blocks of the pages.

Every block is run, but one below `<!-- not run: why -->` and one of docker's commands alone: those
are only checked for their syntax.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
DOCS: Final = ROOT / "service" / "upscaled" / "docs"
METRICS: Final = DOCS / "metrics.md"
PAGES: Final = (ROOT / "README.md", *sorted(DOCS.glob("*.md")))

_BLOCK: Final = re.compile(
    r"^(?:<!-- not run: (?P<why>[^>]+) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """line: of the page, where its text begins. why_not: the reason why it is not run, or ""."""

    page: str
    line: int
    language: str
    text: str
    why_not: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def read_blocks(page: Path, language: str = "") -> list[Block]:
    """Read the blocks of one language, or all."""
    text = page.read_text()
    blocks = [
        Block(
            page=page.name,
            line=text.count("\n", 0, match.start("text")) + 1,
            language=match["language"],
            text=match["text"],
            why_not=match["why"] or _find_why_not(match["text"]),
        )
        for match in _BLOCK.finditer(text)
    ]
    return [block for block in blocks if language in ("", block.language)]


def _find_why_not(text: str) -> str:
    is_dockers = all(line.startswith("docker ") for line in text.splitlines())
    return "needs docker" if is_dockers else ""


def read_all(language: str = "") -> list[Block]:
    return [block for page in PAGES for block in read_blocks(page, language)]
