"""Find and read sources in buckets, by addresses of objects and of prefixes: s3://bucket/key."""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Self

from upscaled.batch.files import HEAD_BYTES, TAIL_BYTES, BatchAborted, check_ends
from upscaled.config.values import require_package

if TYPE_CHECKING:
    from upscaled.state.bucket import Bucket

_URL: Final = re.compile(r"s3://([^/]+)/*(.*?)/*", re.DOTALL)
_SMALL_BYTES: Final = 8 * 2**20
"""Objects up to this size are read by one request, larger ones only if their ends are a picture."""


@dataclass(frozen=True, slots=True)
class S3Url:
    """Address of an object, or of all objects below a prefix; an empty key: of the whole bucket."""

    bucket: str
    key: str = ""

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Return the address, or None where the text is a path."""
        found = _URL.fullmatch(text)
        return cls(found[1], found[2]) if found else None

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}".rstrip("/")

    def below(self, key: str) -> str:
        """Return the key of what lies below this prefix."""
        return f"{self.key}/{key}" if self.key else key

    def holds(self, other: "S3Url") -> bool:
        """Return whether the other address lies below this one."""
        return str(other).startswith(f"{self}/")


@lru_cache
def open_bucket(name: str, endpoint: str) -> "Bucket":
    """Return the client of a bucket; `BatchAborted` without the extra `s3`."""
    try:
        require_package("a bucket needs", "obstore")
    except ValueError as error:
        raise BatchAborted(str(error)) from None
    from upscaled.state.bucket import Bucket  # with a library that others need not load

    return Bucket(name, endpoint)


@dataclass(frozen=True, slots=True)
class BucketObject:
    """Object as a source, see `upscaled.batch.discovery.SourceFile`."""

    bucket: "Bucket"
    url: S3Url
    size_bytes: int = 0
    e_tag: str = ""

    def __str__(self) -> str:
        return str(self.url)

    @property
    def name(self) -> str:
        return self.url.key.rpartition("/")[2]

    def read(self, formats: Collection[str], *, is_any: bool) -> bytes:
        """Read the whole object, or only its ends if it is large and no image."""
        key, size_bytes = self.url.key, self.size_bytes
        if size_bytes > _SMALL_BYTES:
            ends = self.bucket.read_ends(key, size_bytes, HEAD_BYTES, TAIL_BYTES)
            check_ends(ends, size_bytes, formats, is_any=is_any)
        data = self.bucket.read(key, size_bytes) if size_bytes else b""
        check_ends(data[:HEAD_BYTES] + data[-TAIL_BYTES:], len(data), formats, is_any=is_any)
        return data

    def state(self) -> int:
        """Return a number that identifies the version of the object that was listed."""
        return hash((self.url, self.size_bytes, self.e_tag))

    def is_whole(self, *, is_still: bool) -> bool:
        """Return True: a bucket shows an object only once it is complete."""
        return True


def list_objects(bucket: "Bucket", top: S3Url) -> Iterator[BucketObject]:
    """List the objects below a prefix, but for hidden names as in folders."""
    for found in bucket.list(top.key):
        url = S3Url(bucket.name, found.key)
        if top.holds(url) and "/." not in str(url).removeprefix(str(top)):
            yield BucketObject(bucket, url, found.size_bytes, found.e_tag)


def find_object(bucket: "Bucket", url: S3Url) -> BucketObject | None:
    """Return the object of an address, None where it is a prefix or nothing."""
    found = bucket.find(url.key) if url.key else None
    return BucketObject(bucket, url, found.size_bytes, found.e_tag) if found else None
