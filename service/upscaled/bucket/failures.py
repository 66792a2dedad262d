"""Describe failures of a bucket without the names and access keys that its errors quote."""

import re
from typing import Final

_CODE: Final = re.compile(r"<Code>([A-Za-z0-9]{1,60})</Code>")
_STATUS: Final = re.compile(r"status code: (\d{3} [A-Za-z -]{1,40})")
_KIND: Final = re.compile(r"kind: (\w+)")
_ROLE: Final = re.compile(r"/latest/(api/token|meta-data/)")
"""Paths of the address that gives a cloud's machines their role."""
BROKEN_OFF: Final = "the connection broke off"
_KINDS: Final = {"Connect": "no connection", "Timeout": "no answer in time"}


def describe_bucket_error(text: str) -> str:
    """Return a reason for an operator, out of obstore's text for an error.

    That text quotes the object's URL, which is all it takes to fetch a result, and the server's
    answer, which may quote the access key. Only what is known to be harmless is kept of it.
    """
    if _ROLE.search(text):
        return "no credentials: neither AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY nor a role"
    code, status = _CODE.search(text), _STATUS.search(text)
    if code or status:
        parts = [each[1].strip() for each in (status, code) if each]
        return f"the bucket answered {' '.join(parts)}"
    if "incorrectly configured region" in text:
        return "the bucket is in another region than AWS_REGION says"
    kind = _KIND.search(text)
    return _KINDS.get(kind[1], BROKEN_OFF) if kind else "the request failed"
