"""Addresses of objects and of prefixes in buckets: s3://bucket/key."""

import re
from dataclasses import dataclass
from typing import Final, Self

_URL: Final = re.compile(r"s3://([^/]+)/*(.*?)/*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class S3Url:
    """Address of an object, or of all below a prefix; an empty key: of the whole bucket."""

    bucket: str
    key: str = ""

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Return the address, None where the text is none but a path."""
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
