"""A short campaign each time, a long one where time is no matter."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest

from tests.bilinear_model import add_bilinear_model
from tests.fuzzing.campaign import Campaign, Statistics, find_faults
from tests.fuzzing.command import FAST, find_images, still_works
from tests.fuzzing.mutate import mutate
from tests.fuzzing.seeds import make_seeds
from tests.running import Server, serve
from tests.service.image.camera_files import camera_file
from upscaled.decoder.pool import Decoder
from upscaled.errors import ServiceError
from upscaled.image.formats.table import ALWAYS_DECODED, OPTIONAL
from upscaled.image.types import MetadataPlan

pytest.importorskip("pillow_heif", reason="HEIC needs pillow-heif")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data_dir = tmp_path_factory.mktemp("fuzz")
    add_bilinear_model(data_dir)
    with serve(data_dir, **FAST) as server:
        yield server


def test_every_sound_file_is_decoded_and_no_damaged_one_ends_a_decoder() -> None:
    seeds = make_seeds()
    with Decoder(ALWAYS_DECODED | OPTIONAL, processes=1) as decoder:
        for source in seeds.values():
            decoder.decode(source)
        for number in range(300):
            try:
                decoder.decode(mutate(list(seeds.values()), Random(f"0/{number}")))
            except ServiceError:
                continue
        assert decoder.deaths == 0


@pytest.mark.slow
def test_no_damaged_metadata_that_are_to_be_kept_end_a_decoder() -> None:
    plan, decoded = MetadataPlan(True, 128, 96), 0
    with Decoder(ALWAYS_DECODED | OPTIONAL, processes=1) as decoder:
        for kind in ("JPEG", "PNG", "WEBP", "AVIF", "TIFF"):
            source = camera_file(kind, 6)
            assert decoder.decode(source, plan).kept
            for number in range(60):
                with suppress(ServiceError):
                    decoder.decode(mutate([source], Random(f"1/{number}")), plan)
                    decoded += 1
        assert decoder.deaths == 0
    assert decoded > 30


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_3000_damaged_files_are_answered_by_the_contract(server: Server) -> None:
    """`scripts/fuzz` measures time and memory, on a quiet machine."""
    seeds = list(make_seeds(find_images()).values())
    statistics = Campaign(server, seeds, seed=2).run(files=3000)
    assert statistics.failures == {}
    assert statistics.is_front_end_alive
    assert statistics.files == 3000
    assert still_works(server)


def test_wrong_answers_slow_refusals_deaths_and_leaks_are_reported_as_faults() -> None:
    statistics = Statistics(
        failures={3: "internal_error"}, slowest_refusal_s=1.5, slowest_refusal=9
    )
    statistics.is_front_end_alive = False
    statistics.rss_kib = [(100 * at, 1000.0 + 100 * at) for at in range(40)]
    assert find_faults(statistics) == [
        "file 3: internal_error",
        "the front end died",
        "file 9: refused in 1.50 s",
        "front end grows by 1000 KiB in 1,000 files",
    ]


def test_a_steady_growth_is_reported_as_a_leak_and_a_single_step_is_not() -> None:
    steady = [(100 * at, 95_000.0 + at % 3) for at in range(200)]
    assert abs(Statistics(rss_kib=steady).slope_kib_per_1000) < 1
    stepped = [(files, kib + 1024 * (files > 15_000)) for files, kib in steady]
    assert abs(Statistics(rss_kib=stepped).slope_kib_per_1000) < 1
    leaking = [(files, kib + 0.08 * files) for files, kib in steady]
    assert Statistics(rss_kib=leaking).slope_kib_per_1000 == pytest.approx(80, abs=1)


def test_the_images_of_the_optional_data_are_seeds_too(shared_dir: Path) -> None:
    assert len(make_seeds(shared_dir / "images")) > len(make_seeds()) + 100
