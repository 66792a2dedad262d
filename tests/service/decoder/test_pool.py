"""Decoders that crash, hang, take memory or break the protocol end alone."""

import gc
import json
import logging
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.descriptors import no_descriptor_each
from tests.service.decoder.processes import decoder_processes
from tests.service.image.jpeg_samples import photograph, save_jpeg
from tests.service.image.samples import RGB, deep_samples, have_equal_pixels, picture, png, save
from tests.service.image.steps import STEPS
from upscaled.decoder import pool
from upscaled.decoder.pool import Decoder, DecoderDied, decoder_environment
from upscaled.errors import InternalError, MalformedImage, ResolutionTooHigh, UnsupportedImageFormat
from upscaled.image.decode import decode_file

FAKE = (sys.executable, str(Path(__file__).with_name("fake_decoder.py")))
COUNTING = (sys.executable, "-m", "tests.service.decoder.counting_decoder")
THREE = ("JPEG", "PNG", "WEBP")
SLOW_DEATHS = ("swell", "lie", "spin")
STARTING_S = 4.0
"""Silence of a decoder that hangs. One that starts is silent for a second on a machine whose cores
other programs take, and must not count as hanging."""


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with Decoder(THREE, processes=2) as decoder:
        yield decoder


@pytest.fixture
def fake() -> Iterator[Decoder]:
    with Decoder(THREE, processes=2, command=FAKE) as fake:
        yield fake


def fakes() -> list[psutil.Process]:
    return decoder_processes("fake_decoder.py")


@pytest.mark.parametrize("kind", THREE)
def test_pixels_equal_those_decoded_in_this_process(decoder: Decoder, kind: str) -> None:
    source = save(picture(300, 200, 3 if kind == "JPEG" else 4), kind)
    far, near = decoder.decode(source), decode_file(source)
    assert have_equal_pixels(far, near)
    assert (far.icc, far.dpi, far.credit) == (near.icc, near.dpi, near.credit)


@pytest.mark.parametrize("kind", ["baseline", "progressive", "restarts"])
def test_a_decoder_reads_each_part_of_a_jpeg_once(kind: str) -> None:
    source = save_jpeg(photograph(), kind)
    with Decoder(THREE, processes=1, command=COUNTING) as decoder:
        for _ in range(2):
            credit = decoder.decode(source).credit
            assert credit is not None
            assert json.loads(credit.artist) == dict.fromkeys(STEPS, 1)


def test_refusals_arrive_and_the_process_is_kept(decoder: Decoder) -> None:
    decoder.warm_up()
    before = decoder_processes()
    with pytest.raises(MalformedImage):
        decoder.decode(save(picture(), "JPEG")[:-200])
    with pytest.raises(UnsupportedImageFormat):
        decoder.decode(save(picture(), "GIF"))
    with pytest.raises(ResolutionTooHigh):
        decoder.decode(png(deep_samples(3, 8), 8, RGB, size=(20_000, 20_000)))
    assert decoder_processes() == before != []  # a refusal is no reason to start anew


def test_each_crash_and_kill_of_a_decoder_is_counted(fake: Decoder, tmp_path: Path) -> None:
    fake.decode(f"once SIGKILL {tmp_path / 'died'}".encode())
    assert fake.deaths == 1
    with pytest.raises(MalformedImage):
        fake.decode(b"crash")
    assert fake.deaths == 3
    fake.decode(b"a picture")
    assert fake.deaths == 3


def test_the_death_of_a_decoder_is_forgotten_without_a_collection(
    fake: Decoder, tmp_path: Path
) -> None:
    """Its traceback holds the file, and the pixels if they had come."""
    gc.collect()
    gc.disable()
    try:
        fake.decode(f"once SIGKILL {tmp_path / 'died'}".encode())
        assert [each for each in gc.get_objects() if isinstance(each, DecoderDied)] == []
    finally:
        gc.enable()
    assert fake.deaths == 1


@pytest.mark.parametrize(("log_format", "begins"), [("json", "{"), ("text", "20")])
def test_a_decoder_logs_a_fault_of_its_own_in_the_services_format(
    capfd: pytest.CaptureFixture[str], log_format: str, begins: str
) -> None:
    with (
        Decoder(["PNG"], processes=1, command=FAKE, log_format=log_format) as decoder,
        pytest.raises(MalformedImage),
    ):
        decoder.decode(b"raise")
    lines = capfd.readouterr().err.splitlines()
    assert lines[0].startswith(begins)
    assert any("RuntimeError: a bug" in line for line in lines)
    if log_format == "json":
        assert [json.loads(line)["event"] for line in lines] == ["crash", "crash"]


@pytest.mark.parametrize(
    "word",
    ["crash", "raise", *(pytest.param(each, marks=pytest.mark.slow) for each in SLOW_DEATHS)],
)
def test_a_file_that_kills_twice_is_refused_and_the_next_is_decoded(
    fake: Decoder, word: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        with pytest.raises(MalformedImage) as refusal:
            fake.decode(word.encode())
        assert fake.decode(b"a picture").rgb.shape == (64, 64, 3)
    assert refusal.value.detail.startswith("2 decoders died over it")
    assert len(caplog.records) == 2
    assert len(fakes()) == 1


@pytest.mark.parametrize(
    "signals",
    [
        "SIGKILL",
        "SIGKILL,SIGSEGV",
        pytest.param("SIGSEGV", marks=pytest.mark.slow),
        pytest.param("SIGABRT,SIGRTMIN", marks=pytest.mark.slow),
    ],
)
def test_a_file_whose_decoder_died_once_of_a_cause_is_tried_in_a_fresh_one(
    fake: Decoder, tmp_path: Path, signals: str
) -> None:
    word = f"once {signals} {tmp_path / 'mark'}"
    assert fake.decode(word.encode()).rgb.shape == (64, 64, 3)


@pytest.mark.parametrize("word", ["killed", "no memory"])
def test_a_file_whose_decoders_are_killed_from_outside_is_not_refused(
    fake: Decoder, word: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), pytest.raises(InternalError) as failure:
        fake.decode(word.encode())
    assert failure.value.detail.startswith("2 decoders died over it")
    assert [vars(record)["fields"]["cause"] for record in caplog.records] == ["outside"] * 2
    assert fake.decode(b"a picture").rgb.shape == (64, 64, 3)


@pytest.mark.slow
def test_a_file_is_not_refused_for_a_crash_between_two_kills(fake: Decoder, tmp_path: Path) -> None:
    word = f"once SIGKILL,SIGSEGV,SIGRTMIN {tmp_path / 'mark'}"
    with pytest.raises(InternalError):
        fake.decode(word.encode())


def test_a_stopped_decoder_is_replaced_after_its_silence(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Decoder(THREE, processes=2, silence_s=STARTING_S, command=FAKE) as fake:
        word = f"once SIGSTOP {tmp_path / 'mark'}"
        with caplog.at_level(logging.WARNING):
            assert fake.decode(word.encode()).rgb.shape == (64, 64, 3)
        assert f"hung, no processor time for {STARTING_S:g} s" in caplog.text


def test_a_file_whose_decoders_are_stopped_twice_is_not_refused() -> None:
    with (
        Decoder(THREE, processes=2, silence_s=0.2, command=FAKE) as fake,
        pytest.raises(InternalError, match="hung"),
    ):
        fake.decode(b"stopped")


@pytest.mark.slow
def test_files_are_decoded_although_idle_decoders_are_stopped() -> None:
    """Also a file that does not fit into the socket: sending it would wait for ever."""
    noise = np.random.default_rng(1).integers(0, 256, (900, 900, 3), np.uint8)
    source = save(noise, "PNG")
    others = decoder_processes()
    with Decoder(THREE, processes=2, silence_s=STARTING_S) as decoder:
        decoder.warm_up(2)
        for process in decoder_processes():
            if process not in others:
                process.suspend()
        with ThreadPoolExecutor(4) as threads:
            images = list(threads.map(decoder.decode, [source] * 4))
    assert [image.rgb.shape for image in images] == [(900, 900, 3)] * 4


@pytest.mark.slow
def test_other_files_are_decoded_while_one_hangs() -> None:
    with (
        Decoder(THREE, processes=2, within_s=10, command=FAKE) as fake,
        ThreadPoolExecutor(1) as threads,
    ):
        fake.decode(b"a picture")
        hanging = threads.submit(fake.decode, b"hang")
        while fakes()[0].name() != "hanging":
            time.sleep(0.01)
        for _ in range(20):
            fake.decode(b"a picture")
        assert not hanging.done()
        assert isinstance(hanging.exception(), InternalError)


@pytest.mark.slow
def test_a_file_that_is_computed_without_an_end_is_at_fault() -> None:
    with (
        Decoder(THREE, processes=2, within_s=4, command=FAKE) as fake,
        pytest.raises(MalformedImage, match="no answer within 4 s"),
    ):
        fake.decode(b"spin unlimited")


def test_processes_are_bounded_and_kept_warm(decoder: Decoder) -> None:
    source = save(picture(), "PNG")
    with ThreadPoolExecutor(8) as threads:
        images = list(threads.map(decoder.decode, [source] * 40))
    assert len(images) == 40
    assert 1 <= len(decoder_processes()) <= 2


@pytest.mark.parametrize("files", [3, pytest.param(500, marks=pytest.mark.slow)])
def test_a_process_is_replaced_after_many_files(
    fake: Decoder, files: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert files <= pool._FILES_PER_PROCESS == 500
    monkeypatch.setattr(pool, "_FILES_PER_PROCESS", files)
    shades = {tuple(fake.decode(b"a picture").rgb[0, 0]) for _ in range(files + 1)}
    assert len(shades) == 2  # each process has its own
    assert len(fakes()) == 1


def test_no_file_fails_where_an_idle_process_is_killed(decoder: Decoder) -> None:
    source = save(picture(), "PNG")
    decoder.decode(source)
    for process in decoder_processes():
        process.kill()
    assert np.array_equal(decoder.decode(source).rgb, picture())


def shared_pixels() -> set[str]:
    """List the mappings of decoders' pixels in this process; other tests may still hold some."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return set()
    return {line for line in maps.read_text().splitlines() if "memfd:pixels" in line}


def named_memory() -> set[str]:
    """List the shared memory with a name that any program of this machine has."""
    return set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()


def without_that_of_others(names: set[str]) -> set[str]:
    """Return those of these names that no process maps but this one and its children."""
    own = {os.getpid(), *(child.pid for child in psutil.Process().children())}
    used: set[str] = set()
    for maps in Path("/proc").glob("[0-9]*/maps") if names else ():
        with suppress(OSError):  # it has ended, or is another user's
            if int(maps.parent.name) not in own:
                text = maps.read_text()
                used |= {name for name in names if f"/dev/shm/{name}" in text}
    return names - used


@pytest.mark.slow
def test_killed_decoders_leave_no_descriptor_process_or_memory(decoder: Decoder) -> None:
    """Shared memory is looked for with and without a name."""
    source = save(picture(400, 400), "PNG")
    decoder.decode(source)
    gc.collect()  # what earlier tests left would hide what is left here
    others = set(psutil.Process().children()) - set(decoder_processes())
    shared = named_memory()
    mapped = shared_pixels()
    with no_descriptor_each(10):
        for _ in range(10):
            for process in decoder_processes():
                process.kill()
            image = decoder.decode(source)
        del image
    assert set(psutil.Process().children()) - others == set(decoder_processes())
    deadline = time.monotonic() + 60  # other programs have some for moments
    while (left := without_that_of_others(named_memory() - shared)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == set()
    assert shared_pixels() <= mapped


WORKER = """
import sys, threading, time
import psutil
from upscaled.decoder.pool import Decoder
decoder = Decoder(["JPEG"], processes=2, within_s=60, command=sys.argv[1:])
decoder.warm_up()
decoder.decode(b"a picture")
threading.Thread(target=decoder.decode, args=(b"hang",), daemon=True).start()
(child,) = psutil.Process().children()
while child.name() != "hanging":
    time.sleep(0.01)
decoder.warm_up()
print("ready", flush=True)
time.sleep(60)
"""


def test_idle_and_hanging_decoders_end_with_their_worker() -> None:
    worker = subprocess.Popen([sys.executable, "-c", WORKER, *FAKE], stdout=subprocess.PIPE)
    assert worker.stdout is not None
    with worker.stdout as lines:
        assert lines.readline() == b"ready\n"
    decoders = psutil.Process(worker.pid).children(recursive=True)
    assert len(decoders) == 2
    worker.kill()
    worker.wait()
    _, alive = psutil.wait_procs(decoders, timeout=60)
    assert alive == []


def test_a_decoder_inherits_no_files_secrets_or_libraries_of_its_worker(
    decoder: Decoder, tmp_path: Path
) -> None:
    with (tmp_path / "secret").open("w") as secret, pytest.MonkeyPatch.context() as patch:
        os.set_inheritable(secret.fileno(), True)
        patch.setenv("UPSCALED_DATABASE_URL", "secret")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        others = decoder_processes()
        with Decoder(THREE, processes=1) as fresh:
            fresh.decode(save(picture(), "PNG"))
            (process,) = (each for each in decoder_processes() if each not in others)
            assert "secret" not in "".join(process.environ().values())
            assert str(tmp_path / "secret") not in [file.path for file in process.open_files()]
            assert process.rlimit(psutil.RLIMIT_CORE) == (0, 0)
            assert process.rlimit(psutil.RLIMIT_AS)[0] < 1.5 * 2**30
            mapped = "".join(entry.path for entry in process.memory_maps())
            assert "torch" not in mapped
            assert "cv2" not in mapped  # nor any library that decoding does without


@pytest.mark.parametrize(
    ("own", "joined"),
    [
        (None, "glibc.malloc.hugetlb=1"),
        ("", "glibc.malloc.hugetlb=1"),
        ("glibc.cpu.x=1:glibc.rtld.y=2", "glibc.cpu.x=1:glibc.rtld.y=2:glibc.malloc.hugetlb=1"),
        ("glibc.malloc.hugetlb=0:glibc.cpu.x=1", "glibc.malloc.hugetlb=0:glibc.cpu.x=1"),
    ],
)
def test_the_operators_tunables_of_glibc_reach_a_decoder_and_win(
    own: str | None, joined: str
) -> None:
    environment = {} if own is None else {"GLIBC_TUNABLES": own}
    assert decoder_environment(environment)["GLIBC_TUNABLES"] == joined


def is_asking_for_large_pages() -> bool:
    """Whether glibc does so here where it is set to: 2.35 does, if the kernel waits for it."""
    library, version = platform.libc_ver()
    file = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    is_new = library == "glibc" and tuple(map(int, version.split("."))) >= (2, 35)
    return is_new and file.exists() and "[madvise]" in file.read_text()


@pytest.mark.skipif(not is_asking_for_large_pages(), reason="no large pages to ask for")
def test_pixels_are_mapped_in_large_pages() -> None:
    others = decoder_processes()
    with Decoder(THREE, processes=1) as fresh:
        fresh.decode(save(picture(), "PNG"))
        (process,) = (each for each in decoder_processes() if each not in others)
        mappings = Path(f"/proc/{process.pid}/smaps").read_text().partition("[heap]")[2]
    heap_flags = mappings.partition("VmFlags:")[2].partition("\n")[0].split()
    assert "hg" in heap_flags


@pytest.mark.slow
def test_closing_ends_every_process_while_threads_still_decode() -> None:
    others = decoder_processes()
    decoder = Decoder(THREE, processes=2)
    source = save(picture(1000, 1000), "PNG")
    threads = [threading.Thread(target=decoder.decode, args=(source,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    decoder.close()
    for thread in threads:
        thread.join()
    decoder.close()
    assert decoder_processes() == others


@pytest.mark.slow
def test_a_warm_decoder_process_adds_less_than_three_milliseconds(decoder: Decoder) -> None:
    """Of processor time: what else the machine does hardly counts."""
    source = save(picture(64, 64), "JPEG")
    decoder.decode(source)
    before = set(decoder_processes())

    def used_s() -> float:
        return time.process_time() + sum(sum(each.cpu_times()[:2]) for each in before)

    costs_s = []
    for call in (decoder.decode, decode_file):
        begun_s = used_s()
        for _ in range(100):
            call(source)
        costs_s.append((used_s() - begun_s) / 100)
    assert set(decoder_processes()) == before
    assert costs_s[0] - costs_s[1] < 0.003
