"""nginx as the page on buckets sets it up: it takes results from the bucket itself."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image

from tests.buckets import Bucket
from tests.certificates import make_certificate
from tests.docs.blocks import DOCS, read_blocks
from tests.docs.conftest import Site, find_program, proxy
from tests.listening import free_port
from tests.running import serve

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PAGE = DOCS / "bucket.md"
NAME, PREFIX = "my-bucket", "public/result"
V7 = "01978a3b-0000-7000-8000-000000000000.jpg"


@pytest.fixture
def site(bucket: Bucket, tmp_path: Path, photos: Path) -> Iterator[tuple[Site, Bucket]]:
    """The service with the page's bucket, open as the page has it, behind nginx."""
    if find_program("nginx") is None:
        pytest.skip("nginx is not installed")
    used = Bucket(bucket.server, bucket.endpoint, bucket.name, PREFIX)
    policies = [json.loads(block.text) for block in read_blocks(PAGE, "json")]
    (public,) = (each for each in policies if "Principal" in repr(each))
    used.allow(json.dumps(public).replace(NAME, used.name))
    (locations,) = read_blocks(PAGE, "nginx")
    text = locations.text
    for old, new in (
        ("https://s3.eu-central-1.amazonaws.com/my-bucket/", f"{used.server}/{used.name}/"),
        ("Host s3.eu-central-1.amazonaws.com;", f"Host {used.server.removeprefix('http://')};"),
    ):
        assert old in text
        text = text.replace(old, new)
    certificate, port = make_certificate(tmp_path), free_port()
    public_url = f"https://localhost:{port}"
    settings: dict[str, Any] = {
        f"UPSCALED_{name.upper()}": value for name, value in used.settings.items()
    }
    with serve(tmp_path / "data", UPSCALED_PUBLIC_BASE_URL=public_url, **settings) as server:
        upstream = server.url.removeprefix("http://")
        with proxy("nginx", tmp_path, port, upstream, certificate, locations=text):
            yield Site("nginx", server, public_url, port, certificate, photos), used


def test_nginx_serves_results_from_the_bucket_and_the_service_everything_else(
    site: tuple[Site, Bucket],
) -> None:
    through, bucket = site
    trusted = str(through.certificate.certificate)

    def send(method: str, path: str) -> requests.Response:
        url = f"{through.public_url}/public/result/{path}"
        return requests.request(method, url, timeout=30, verify=trusted, allow_redirects=False)

    photo = (through.photos / "photo.jpg").read_bytes()
    headers = {"X-API-KEY": through.server.key}
    answer = requests.post(
        f"{through.public_url}/v1/upscale", headers=headers, files={"image": photo},
        data={"scale": "2"}, timeout=120, verify=trusted,
    )  # fmt: skip
    name = answer.json()["result_url"].rpartition("/")[2]
    assert answer.json()["result_url"] == f"{through.public_url}/public/result/{name}"
    got, head, with_query = send("GET", name), send("HEAD", name), send("GET", f"{name}?acl")
    for each in (got, head, with_query):
        assert each.status_code == 200
        # moto's server refuses an unsigned HEAD, which S3 permits by GetObject.
        assert ("X-Request-Id" in each.headers) == (each is head)
        assert each.headers["Content-Type"] == "image/jpeg"
        assert each.headers["Content-Length"] == str(len(got.content))
        assert each.headers["Cache-Control"] == "private, no-store"
        assert each.headers["X-Content-Type-Options"] == "nosniff"
        assert {"ETag", "x-amz-id-2", "x-amz-request-id"} & set(each.headers) == set()
        assert not [name for name in each.headers if name.lower().startswith("x-amz-meta-")]
    assert with_query.content == got.content
    with Image.open(io.BytesIO(got.content)) as image:
        assert image.format == "JPEG"
    for path in (V7, "", "x", f"{name}/", "..%2f..%2fx", "%00"):
        missing = send("GET", path)
        assert missing.status_code in (400, 404)
        assert missing.status_code == 400 or missing.json()["error_code"] == "not_found"
    for method in ("POST", "PUT", "DELETE"):
        refused = send(method, name)
        assert (refused.status_code, refused.json()["error_code"]) == (405, "method_not_allowed")
    assert bucket.list_keys() == [f"{PREFIX}/{name}"]
    bucket.put(f"{PREFIX}/job-sources/{'0' * 32}", photo)  # an image that waits is no result
    assert send("GET", f"job-sources/{'0' * 32}").status_code == 404
