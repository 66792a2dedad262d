"""The server of a bucket: the setting, else the first of AWS's own variables."""

from datetime import timedelta

import pytest

from tests.buckets import Bucket
from upscaled.bucket.endpoint import find_endpoint

pytest.importorskip("obstore", reason="obstore is not installed")
from upscaled.bucket.client import connect, create_result

NOWHERE = "http://127.0.0.1:1"


@pytest.mark.parametrize(
    ("setting", "variables", "endpoint"),
    [
        ("", {}, ""),
        ("https://a/", {"AWS_ENDPOINT_URL_S3": "https://b"}, "https://a"),
        ("", {"AWS_ENDPOINT_URL_S3": "https://b/", "AWS_ENDPOINT_URL": "https://c"}, "https://b"),
        ("", {"AWS_ENDPOINT": "https://d", "AWS_ENDPOINT_URL": "https://c"}, "https://c"),
        ("", {"AWS_ENDPOINT": "https://d", "AWS_ENDPOINT_URL": ""}, "https://d"),
    ],
)
def test_the_setting_wins_over_the_variables_of_aws(
    monkeypatch: pytest.MonkeyPatch, setting: str, variables: dict[str, str], endpoint: str
) -> None:
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert find_endpoint(setting) == endpoint


async def test_the_client_connects_to_the_endpoint_that_is_found(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT", NOWHERE)
    monkeypatch.setenv("AWS_ENDPOINT_URL", bucket.endpoint)
    store = connect(bucket.url, "", timedelta(seconds=10))
    assert await create_result(store, "a.png", b"picture", "image/png")
    assert bucket.get("results/a.png") == b"picture"
