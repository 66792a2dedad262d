"""Benches whose network can be worked out by hand; all else is real."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from PIL import Image as PillowImage

from tests.service.image.samples import picture
from tests.service.upscale.true_engine import TrueEngine
from upscaled.batch.bucket_source import S3Url, open_bucket
from upscaled.batch.discovery import Finder
from upscaled.batch.file_job import FileUpscaler
from upscaled.batch.journal import FILE_NAME, Journal
from upscaled.batch.outcome import Kind, Outcome
from upscaled.batch.output_bucket import OutputBucket
from upscaled.batch.output_folder import OutputFolder
from upscaled.batch.output_store import Output, OutputStore
from upscaled.batch.run import Stop, run_batch
from upscaled.config import Settings, load_settings
from upscaled.upscale.opening import open_core
from upscaled_models.backends.base import Engine

SCALE = 2


def true_engine() -> TrueEngine:
    """Repeats pixels, under the name of a model that exists."""
    return TrueEngine(model="upscaled-x2")


@dataclass
class Noting:
    """Listener that keeps the outcomes."""

    outcomes: list[Outcome]

    def on_part(self, source: str, done_part: float) -> None:
        assert 0 <= done_part <= 1

    def add(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)


@dataclass
class Batch:
    """A batch from `source_dir` into `output_dir`, run after run."""

    folder: Path
    engine: TrueEngine = field(default_factory=true_engine)
    settings: dict[str, object] = field(default_factory=dict)
    is_overwriting: bool = False
    output: S3Url | None = None
    """In place of `output_dir`, which then holds the journal; `settings` name the endpoint."""

    @property
    def source_dir(self) -> Path:
        return self.folder / "in"

    @property
    def output_dir(self) -> Path:
        return self.folder / "out"

    @contextmanager
    def upscaling(self, stop: Stop, outcomes: list[Outcome]) -> Iterator[FileUpscaler]:
        self.output_dir.mkdir(exist_ok=True)
        settings = load_settings({}, data_dir=self.folder / "data", **self.settings)
        with (
            Journal(self.output_dir / FILE_NAME) as journal,
            OutputStore(
                self._open_output(settings, journal), is_overwriting=self.is_overwriting
            ) as store,
            open_core(
                settings, scales=(SCALE,), open_engine=lambda _: cast(Engine, self.engine)
            ) as core,
        ):
            yield FileUpscaler(core, SCALE, store, Noting(outcomes), stop.cancellation)

    def _open_output(self, settings: Settings, journal: Journal) -> Output:
        if self.output is None:
            return OutputFolder(self.output_dir, journal)
        bucket = open_bucket(self.output.bucket, settings.s3_endpoint)
        return OutputBucket(self.output, bucket, journal)

    def run(self, *arguments: str, stop: Stop | None = None) -> dict[str, Outcome]:
        """Outcomes by the source's name below `source_dir`, or by its whole one."""
        outcomes: list[Outcome] = []
        stop = stop or Stop()
        with self.upscaling(stop, outcomes) as upscaling:
            endpoint = upscaling.core.settings.s3_endpoint
            finder = Finder(self.output or self.output_dir, s3_endpoint=endpoint)
            run_batch(finder.find(arguments or [str(self.source_dir)]), upscaling, stop)
        return {outcome.source.removeprefix(f"{self.source_dir}/"): outcome for outcome in outcomes}

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
