"""The doctor's line on the store of results, with a real bucket and with servers unfit for it."""

import re
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from tests.buckets import ACCESS_KEY, SECRET_KEY, Bucket
from tests.service.doctor.answering import running
from upscaled.config import load_settings
from upscaled.doctor.finding import Finding, Status
from upscaled.doctor.folders import check_results


def check(tmp_path: Path, **settings: str) -> Finding:
    (finding,) = check_results(load_settings({}, data_dir=tmp_path, **settings))
    return finding


def test_results_in_the_data_folder_are_well(tmp_path: Path) -> None:
    finding = check(tmp_path)
    assert finding.status is Status.OK
    assert str(tmp_path / "results") in finding.found


def test_a_bucket_that_works_is_well_and_left_empty(tmp_path: Path, bucket: Bucket) -> None:
    finding = check(tmp_path, **bucket.settings)
    assert finding.status is Status.OK
    assert bucket.url in finding.found
    assert bucket.list_keys() == []


@pytest.mark.parametrize(
    ("name", "endpoint", "reason"),
    [
        ("no-such-bucket", "", "404 Not Found NoSuchBucket"),
        ("", "http://127.0.0.1:1", "cannot store a result: no connection"),
    ],
)
def test_a_bucket_that_cannot_be_used_is_a_failure_with_its_reason(
    tmp_path: Path, bucket: Bucket, name: str, endpoint: str, reason: str
) -> None:
    url = f"s3://{name or bucket.name}/results"
    finding = check(tmp_path, results_url=url, s3_endpoint=endpoint or bucket.endpoint)
    assert finding.status is Status.FAILURE
    assert finding.found.startswith(f"{url}: ")
    assert reason in finding.found
    assert "UPSCALED_RESULTS_URL" in finding.advice


class _Overwriting(BaseHTTPRequestHandler):
    """A server that ignores the condition of a PUT, as some that call themselves S3 do."""

    protocol_version = "HTTP/1.1"
    objects: dict[str, bytes]

    def do_PUT(self) -> None:
        self.objects[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(b"")

    def do_GET(self) -> None:
        self._answer(self.objects[self.path])

    def do_POST(self) -> None:
        deleted = re.findall(
            b"<Key>.*?</Key>", self.rfile.read(int(self.headers["Content-Length"]))
        )
        self._answer(b"<DeleteResult><Deleted>%b</Deleted></DeleteResult>" % b"".join(deleted))

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        for name, value in (
            *(("Content-Length", str(len(body))), ("ETag", '"1"')),
            ("Last-Modified", "Sat, 28 Nov 2026 00:00:00 GMT"),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def overwriting_server(bucket: Bucket) -> Iterator[str]:
    """The URL of such a server; the credentials are set as for a bucket."""
    handler = type("Handler", (_Overwriting,), {"objects": {}})
    with running(handler) as port:
        yield f"http://127.0.0.1:{port}"


def test_a_server_that_overwrites_on_a_create_only_put_is_refused_by_name(
    tmp_path: Path, overwriting_server: str
) -> None:
    finding = check(tmp_path, results_url="s3://bucket/results", s3_endpoint=overwriting_server)
    assert finding.status is Status.FAILURE
    assert f"{overwriting_server} overwrites an object" in finding.found


def test_no_finding_shows_a_credential(tmp_path: Path, bucket: Bucket) -> None:
    findings = [
        check(tmp_path, **bucket.settings),
        check(tmp_path, results_url="s3://no-such-bucket", s3_endpoint=bucket.endpoint),
    ]
    shown = repr(findings)
    assert ACCESS_KEY not in shown
    assert SECRET_KEY not in shown
