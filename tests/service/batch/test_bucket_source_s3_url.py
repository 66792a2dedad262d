import pytest

from upscaled.batch.bucket_source import S3Url


@pytest.mark.parametrize(
    ("text", "bucket", "key"),
    [
        ("s3://b", "b", ""),
        ("s3://b/", "b", ""),
        ("s3://b/in/", "b", "in"),
        ("s3://b/a b/\u6f22#1?%20\n.png", "b", "a b/\u6f22#1?%20\n.png"),
    ],
)
def test_a_key_is_taken_as_it_is_but_for_slashes_around_it(
    text: str, bucket: str, key: str
) -> None:
    assert S3Url.parse(text) == S3Url(bucket, key)
    assert S3Url.parse(str(S3Url(bucket, key))) == S3Url(bucket, key)


@pytest.mark.parametrize("text", ["", "photo.jpg", "s3:/b/in", "S3://b", "s3://", "s3:///in"])
def test_a_text_that_is_no_s3_url_is_a_path(text: str) -> None:
    assert S3Url.parse(text) is None


def test_a_prefix_holds_what_lies_below_it_and_not_what_only_begins_alike() -> None:
    assert S3Url("b", "in").holds(S3Url("b", "in/a.png"))
    assert S3Url("b").holds(S3Url("b", "in"))
    for key in ("in", "in2/a.png", "in.png", ""):
        assert not S3Url("b", "in").holds(S3Url("b", key))
    assert not S3Url("b").holds(S3Url("b2", "in"))
    assert S3Url("b", "in").below("a.png") == "in/a.png"
    assert S3Url("b").below("a.png") == "a.png"
