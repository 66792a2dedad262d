"""Benches whose network can be worked out by hand; all else is real."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from PIL import Image as PillowImage

from tests.service.image.samples import picture
from tests.service.upscale.true_engine import TrueEngine
from upscaled.batch.discovery import Finder
from upscaled.batch.file_job import FileUpscaler, open_file_upscaler
from upscaled.batch.in_flight import Stop
from upscaled.batch.journal import FILE_NAME, Journal
from upscaled.batch.outcome import Kind, Outcome
from upscaled.batch.run import run_batch
from upscaled.config import load_settings
from upscaled_models.backends.base import Engine

SCALE = 2


def true_engine() -> TrueEngine:
    """Repeats pixels, under the name of a model that exists."""
    return TrueEngine(model="upscaled-x2")


@dataclass
class Batch:
    """What is upscaled from `source_dir` into `output_dir`, run after run."""

    folder: Path
    engine: TrueEngine = field(default_factory=true_engine)
    settings: dict[str, object] = field(default_factory=dict)
    is_overwriting: bool = False

    @property
    def source_dir(self) -> Path:
        return self.folder / "in"

    @property
    def output_dir(self) -> Path:
        return self.folder / "out"

    @contextmanager
    def upscaling(self, stop: Stop) -> Iterator[FileUpscaler]:
        self.output_dir.mkdir(exist_ok=True)
        settings = load_settings({}, data_dir=self.folder / "data", **self.settings)
        with (
            Journal(self.output_dir / FILE_NAME) as journal,
            open_file_upscaler(
                SCALE,
                settings,
                journal,
                self.output_dir,
                stop,
                is_overwriting=self.is_overwriting,
                open_engine=lambda _model: cast(Engine, self.engine),
            ) as upscaling,
        ):
            yield upscaling

    def run(self, *arguments: str, stop: Stop | None = None) -> dict[str, Outcome]:
        """Outcomes by the source's name below `source_dir`, or by its whole one."""
        outcomes: dict[str, Outcome] = {}
        stop = stop or Stop()

        def note(outcome: Outcome) -> None:
            path = outcome.source
            is_below = path.is_relative_to(self.source_dir)
            outcomes[str(path.relative_to(self.source_dir) if is_below else path)] = outcome

        with self.upscaling(stop) as upscaling:
            found = Finder(self.output_dir).find(arguments or [str(self.source_dir)])
            run_batch(found, upscaling, note, stop)
        return outcomes

    def run_kinds(self, *arguments: str) -> dict[str, Kind]:
        return {name: outcome.kind for name, outcome in self.run(*arguments).items()}

    def results(self) -> list[str]:
        """Every file in the output folder but the journal, hidden ones too."""
        return sorted(
            str(path.relative_to(self.output_dir))
            for path in self.output_dir.rglob("*")
            if path.is_file() and not path.name.startswith(FILE_NAME)
        )

    def add(self, name: str, shade: int = 0, size: tuple[int, int] = (40, 30)) -> Path:
        """A picture of its own for each `shade`; its format by the name."""
        path = self.source_dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = picture(size[1], size[0]) // 2 + shade
        PillowImage.fromarray(pixels).save(path)
        return path
