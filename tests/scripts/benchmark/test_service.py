import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import psutil
import pytest
import requests

from scripts.benchmark.effort import QUICK
from scripts.benchmark.server import Server, read_stages
from scripts.benchmark.service import (
    measure_cold,
    measure_http,
    measure_memory,
    percentile,
    repeating,
    send_timed,
)

WORK_S = 0.03


class Work(BaseHTTPRequestHandler):
    """Answers any upload after a while, and counts how many it works on at once."""

    lock = threading.Lock()
    at_once = 0
    most_at_once = 0

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        with Work.lock:
            Work.at_once += 1
            Work.most_at_once = max(Work.at_once, Work.most_at_once)
        time.sleep(WORK_S)
        with Work.lock:
            Work.at_once -= 1
        self.send_response(200)
        self.send_header("Server-Timing", "queue;dur=0.1, network;dur=20.0")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_words: object) -> None: ...


@pytest.fixture
def server() -> Iterator[Server]:
    Work.most_at_once = 0
    with ThreadingHTTPServer(("127.0.0.1", 0), Work) as listening:
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
        thread.start()
        url = f"http://127.0.0.1:{listening.server_port}"
        yield Server(url, "key", psutil.Process(), ready_s=0.0)
        listening.shutdown()
        thread.join()


def test_clients_send_at_once_but_never_more_than_there_are(server: Server) -> None:
    answers, seconds = server.send_all([64, 72] * 6, clients=3)
    assert len(answers) == 12
    assert Work.most_at_once == 3
    assert seconds >= 12 / 3 * WORK_S


def test_time_outside_the_network_is_the_clients_time_less_the_networks(server: Server) -> None:
    answers, _ = server.send_all([64] * 3, clients=1)
    for answer in answers:
        assert answer.seconds >= WORK_S
        assert answer.outside_s == pytest.approx(answer.seconds - 0.02)


def test_the_parts_of_http_are_measured_whole(server: Server) -> None:
    figures: Any = measure_http(server, QUICK)
    alone = figures["alone"]["64"]
    assert alone["p95_s"] >= alone["p50_s"] >= WORK_S
    assert 1 - 0.02 / WORK_S < alone["share_outside_network"] < 1
    assert [row["requests"] for row in figures["clients"].values()] == [1, 2]
    assert figures["beside_large"]["ratio"] > 0
    assert figures["small_images"]["ratio"] > 1, "two clients at a service that takes both at once"
    assert list(figures["content"]["ratios"]) == ["product photo, white around", "cut-out"]


def test_a_first_request_is_reported_beside_the_median_of_later_ones(server: Server) -> None:
    figures: Any = measure_cold(server, QUICK)
    assert figures["side_px"] == QUICK.photo_px
    assert min(figures["first_s"], figures["later_s"]) >= WORK_S


def test_memory_is_measured_while_a_picture_is_under_way(server: Server) -> None:
    figures: Any = measure_memory(server, QUICK, "cpu")
    assert 10 < figures["peak_pss_mib"] <= figures["peak_rss_mib"]
    assert 0 < figures["healthz_ms"]["p50"] <= figures["healthz_ms"]["p99"]
    assert figures["peak_device_mib"] is None


def test_memory_counts_in_full_where_what_is_shared_is_hidden(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a front end's is from every user but root."""

    def hide(process: psutil.Process) -> None:
        raise psutil.AccessDenied(process.pid)

    monkeypatch.setattr(psutil.Process, "memory_full_info", hide)
    figures: Any = measure_memory(server, QUICK, "cpu")
    assert 10 < figures["peak_rss_mib"] == figures["peak_pss_mib"]


def test_throughput_counts_the_pixels_of_results(server: Server) -> None:
    figures: Any = send_timed(server, [100, 50], clients=1)[0]
    assert figures["requests"] == 2
    by_image = figures["megapixels_per_s"] / figures["images_per_s"]
    assert by_image == pytest.approx((0.16 + 0.04) / 2, rel=0.01)


def test_a_refusal_ends_the_measurement() -> None:
    with pytest.raises(requests.ConnectionError):
        Server("http://127.0.0.1:1", "key", psutil.Process(), 0.0).send_all([64], clients=1)


def test_work_is_repeated_until_the_block_ends() -> None:
    with repeating(lambda: time.sleep(0.01)) as seconds:
        time.sleep(0.05)
    assert len(seconds) >= 2
    assert min(seconds) >= 0.01


def test_an_error_of_the_repeated_work_is_raised_at_the_end() -> None:
    with pytest.raises(ZeroDivisionError), repeating(lambda: 1 // 0):
        pass


def test_a_percentile_is_one_of_the_values() -> None:
    values = [float(value) for value in range(1, 21)]
    assert percentile(values, 50) == 10
    assert percentile(values, 95) == 19
    assert percentile([7.0], 95) == 7


def test_stages_are_read_in_seconds() -> None:
    assert read_stages("queue;dur=0.4, encode;dur=12.5") == {"queue": 0.0004, "encode": 0.0125}
