"""A real front end upscales on a real Ray cluster and loses nothing where parts are killed."""

import hashlib
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import requests

from tests.buckets import VARIABLES
from tests.running import REPOSITORY_DIR, Server, serve
from tests.service.pool.pools import picture
from tests.service.pool.ray_serve.clusters import (
    BIN,
    QUEUE,
    REPLICAS,
    SLOTS,
    Cluster,
    has_ray,
    running_cluster,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not has_ray, reason="ray is not installed (requirements-cluster.lock)"),
]

CLIENTS = 8


@pytest.fixture(scope="module")
def bucket_settings(s3_server: str) -> dict[str, str]:
    """What front ends and nodes need for a bucket."""
    requests.put(f"{s3_server}/on-a-cluster", timeout=30).raise_for_status()
    url = "s3://on-a-cluster/results"
    return {**VARIABLES, "UPSCALED_RESULTS_URL": url, "UPSCALED_S3_ENDPOINT": s3_server}


@pytest.fixture(scope="module")
def cluster(
    tmp_path_factory: pytest.TempPathFactory, bucket_settings: dict[str, str]
) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("node"), **bucket_settings) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def server(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in cluster.environment.items():
            if name.startswith(("RAY_", "AWS_")):
                patch.setenv(name, value)
        with serve(
            tmp_path_factory.mktemp("front_end"),
            UPSCALED_CLUSTER="ray",
            UPSCALED_RESULTS_URL=cluster.environment["UPSCALED_RESULTS_URL"],
            UPSCALED_S3_ENDPOINT=cluster.environment["UPSCALED_S3_ENDPOINT"],
            UPSCALED_RATE_PER_S="100000",
            UPSCALED_RATE_BURST="100000",
        ) as server:
            yield server


@pytest.fixture(autouse=True)
def all_ready(server: Server) -> None:
    """Each test begins with every replica at work."""
    wait_until(lambda: read_metric(server, "workers_ready") == REPLICAS)


def post(
    server: Server, side_px: int = 64, *, timeout_s: float = 120, accept: str = "image/*"
) -> requests.Response:
    return requests.post(
        server.url + "/v1/upscale",
        headers={"X-API-KEY": server.key, "Accept": accept},
        files={"image": picture(side_px)},
        data={"scale": "4"},
        timeout=timeout_s,
    )


def read_metric(server: Server, name: str) -> float:
    text = requests.get(server.url + "/metrics", timeout=60).text
    (line,) = [line for line in text.splitlines() if line.startswith(f"upscaled_{name} ")]
    return float(line.split()[-1])


def wait_until(condition: Callable[[], bool], timeout_s: float = 100) -> None:
    give_up_at = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < give_up_at, "it never became so"
        time.sleep(0.1)


def answers_under_load(server: Server, harm: Callable[[], None]) -> Counter[tuple[int, str]]:
    """The answers, as status and digest, of clients while a part of the cluster is harmed."""
    is_over = threading.Event()

    def send() -> list[tuple[int, str]]:
        answers = []
        while not is_over.is_set():
            answer = post(server)
            answers.append((answer.status_code, hashlib.sha256(answer.content).hexdigest()))
        return answers

    with ThreadPoolExecutor(CLIENTS) as threads:
        sending = [threads.submit(send) for _ in range(CLIENTS)]
        try:
            time.sleep(1)
            harm()
            time.sleep(5)
        finally:
            is_over.set()
        return Counter(answer for each in sending for answer in each.result())


def test_an_answer_is_the_one_that_a_single_machine_gives(server: Server, tmp_path: Path) -> None:
    with serve(tmp_path) as single:
        assert post(server).content == post(single).content


def test_the_cluster_passes_its_check(cluster: Cluster) -> None:
    report = json.loads(cluster.run("upscaled", "cluster", "check", "--json").stdout)
    wrong = {each["check"]: each["status"] for each in report["findings"] if each["advice"]}
    assert wrong == {"head's store": "warning"}  # a test needs none
    found = {each["check"]: each["found"] for each in report["findings"]}
    assert found["nodes"] == "1 of 1 answer"
    assert found["zombies"] == "reaped on all"
    assert found["deployment"] == "HEALTHY"
    assert found["replicas"].startswith(f"{REPLICAS} of {REPLICAS} take images")
    assert found["results"] == "replicas store them in the bucket themselves"


def test_the_check_ends_where_serves_controller_is_silent(cluster: Cluster) -> None:
    (controller,) = cluster.controllers()
    controller.suspend()
    try:
        command = [str(BIN / "upscaled"), "cluster", "check", "--json"]
        done = subprocess.run(command, env=cluster.environment, capture_output=True, timeout=200)
    finally:
        controller.resume()
    findings = json.loads(done.stdout)["findings"]
    assert done.returncode == 1
    (failed,) = [finding for finding in findings if finding["status"] == "failure"]
    assert failed["check"] == "deployment"
    assert "controller does not answer" in failed["found"]


def test_a_replica_stores_the_result_itself(server: Server, cluster: Cluster) -> None:
    from upscaled.state.bucket_results import read_creation_s  # the bucket's client may be missing

    answer = post(server, accept="application/json")
    url = answer.json()["result_url"]
    # The front end stamps a name that is for a replica with a moment to come.
    assert read_creation_s(url.rpartition("/")[2]) > time.time() + 60
    assert requests.get(url, timeout=30).content == post(server).content
    workers = [each.environ() for each in cluster.workers()]
    assert workers
    assert not any(name.startswith("AWS_") for each in workers for name in each)


def test_another_number_of_replicas_restarts_no_other(server: Server, cluster: Cluster) -> None:
    before = {each.pid for each in cluster.replicas()}
    cluster.deploy(REPLICAS - 1)
    wait_until(lambda: len(cluster.replicas()) == REPLICAS - 1)
    # Only then does the figure below speak of the replicas that are to come.
    wait_until(lambda: read_metric(server, "workers_ready") == REPLICAS - 1)
    kept = {each.pid for each in cluster.replicas()}
    assert kept < before
    cluster.deploy()
    wait_until(lambda: len(cluster.replicas()) == len(cluster.workers()) == REPLICAS)
    wait_until(lambda: read_metric(server, "workers_ready") == REPLICAS)
    assert kept < {each.pid for each in cluster.replicas()}


def test_the_figures_are_those_of_all_replicas(server: Server) -> None:
    assert read_metric(server, "workers_wanted") == REPLICAS
    assert read_metric(server, "running_limit_images") == REPLICAS * SLOTS


def test_no_engine_runs_where_the_cluster_is_spoken_to(server: Server, cluster: Cluster) -> None:
    assert post(server).status_code == 200
    replicas, workers = cluster.replicas(), cluster.workers()
    assert len(replicas) == len(workers) == REPLICAS
    for process in [server.front_end(), *replicas]:
        # Another than root does not see a replica's: the point of `hide_memory`.
        with suppress(psutil.AccessDenied):
            assert not [each.path for each in process.memory_maps() if "libtorch" in each.path]
    for worker in workers:
        assert not [name for name in worker.environ() if name.startswith("RAY_")]


def test_what_fits_nowhere_is_refused_at_once_with_a_wait(server: Server) -> None:
    sent = 3 * REPLICAS * (SLOTS + QUEUE)
    with ThreadPoolExecutor(sent) as threads:
        answers = list(threads.map(lambda _: post(server, 256), range(sent)))
    refused = [answer for answer in answers if answer.status_code == 429]
    worked = [answer for answer in answers if answer.status_code == 200]
    assert len(refused) + len(worked) == sent
    assert len(worked) >= REPLICAS * (SLOTS + QUEUE) / 2
    assert refused
    assert all(int(answer.headers["Retry-After"]) >= 1 for answer in refused)
    slowest_s = max(answer.elapsed.total_seconds() for answer in worked)
    assert max(answer.elapsed.total_seconds() for answer in refused) < slowest_s


def test_a_client_that_leaves_ends_the_work_at_the_replica(server: Server) -> None:
    with pytest.raises(requests.exceptions.ReadTimeout):
        post(server, 1500, timeout_s=4)
    wait_until(lambda: read_metric(server, "running_images") == 0, timeout_s=15)


@pytest.mark.parametrize("part", ["workers", "replicas"])
def test_nothing_is_lost_where_one_is_killed(server: Server, cluster: Cluster, part: str) -> None:
    victim = (cluster.workers() if part == "workers" else cluster.replicas())[0]
    answers = answers_under_load(server, victim.kill)
    assert [status for status, _ in answers] == [200]  # one result of all replicas
    assert not victim.is_running()


def test_nothing_is_lost_where_serve_is_shut_down_and_deployed_anew(
    server: Server, cluster: Cluster
) -> None:
    def deploy_anew() -> None:
        cluster.run("serve", "shutdown", "--yes")
        cluster.deploy()

    answers = answers_under_load(server, deploy_anew)
    assert [status for status, _ in answers] == [200]


def test_what_ray_says_is_json_too(server: Server) -> None:
    """By now it has said that replicas died; gRPC speaks where a process is forked."""
    body = {"image_url": "http://nohost.invalid/a.jpg", "scale": 4}
    headers = {"X-API-KEY": server.key}
    answer = requests.post(server.url + "/v1/upscale", json=body, headers=headers, timeout=60)
    assert answer.json()["error_code"] == "invalid_parameter"
    lines = [json.loads(line) for line in server.stderr]
    assert "ray.serve" in {line.get("logger") for line in lines}


def test_the_conformance_kit_passes(server: Server) -> None:
    options = ["--base-url", server.url, "--api-key", server.key, "--per-second", "1000"]
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "tests/conformance", "-m", "not slow", *options],
        cwd=REPOSITORY_DIR,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert finished.returncode == 0, finished.stdout[-5000:]
    assert " failed" not in finished.stdout
