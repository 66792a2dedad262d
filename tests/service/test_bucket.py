"""The real service with its results in a bucket: where its credentials are, and where not."""

import json
from typing import Any

import pytest
import requests

from tests.buckets import ACCESS_KEY, SECRET_KEY, Fault, FaultyBucket
from tests.running import Server, serve
from tests.service.api.pictures import picture

pytestmark = pytest.mark.slow


def post(server: Server, **body: Any) -> requests.Response:
    headers = {"X-API-KEY": server.key}
    return requests.post(f"{server.url}/v1/upscale", headers=headers, timeout=60, **body)


def test_workers_and_the_log_have_no_credentials_of_the_bucket(
    faulty_bucket: FaultyBucket, tmp_path_factory: pytest.TempPathFactory
) -> None:
    bucket = faulty_bucket.bucket
    settings: dict[str, Any] = {
        f"UPSCALED_{name.upper()}": value for name, value in bucket.settings.items()
    }
    upload = {"files": {"image": ("a.png", picture())}, "data": {"scale": "2"}}
    folder = tmp_path_factory.mktemp("service") / "data"
    with serve(folder, UPSCALED_LOG_LEVEL="debug", **settings) as server:
        url = post(server, **upload).json()["result_url"]
        assert requests.get(url, timeout=60).status_code == 200
        unreachable = {"image_url": "http://nothing.invalid/", "scale": 2}
        assert post(server, json=unreachable).status_code == 400
        children = server.front_end().children(recursive=True)
        commands = " ".join(" ".join(child.cmdline()) for child in children)
        environments = [child.environ() for child in children]
        assert ACCESS_KEY in server.environment.values()
        faults: list[Fault] = ["busy", "cut"]
        for fault in faults:
            faulty_bucket.fail(fault)
            assert post(server, **upload).status_code == 500
            assert requests.get(url, timeout=30).status_code == 500
        server.wait_said("state_unusable")
        faulty_bucket.fail(None)
        server.wait_said("state_usable")
        server.stop()
    for module in ("upscaled.worker", "upscaled.decoder", "upscaled.fetch"):
        assert module in commands
    assert [names for names in environments if any(name.startswith("AWS_") for name in names)] == []
    log = "".join(server.stderr)
    assert len([line for line in map(json.loads, server.stderr) if line["event"] == "request"]) >= 7
    name = url.rpartition("/")[2].partition(".")[0]
    assert [secret for secret in (ACCESS_KEY, SECRET_KEY, name) if secret in log] == []
