"""Migrations from each released schema revision to this version's."""

from typing import Final

# The revision of `schema.py`. A test compares both with the last file in versions/.
SCHEMA_REVISION = "0017"

REVISIONS_OF_COMMITS: Final = frozenset(f"{number:04}" for number in range(2, 13))
"""Revisions between those of 0.1.0 (0001) and 0.2.0 (0013); only versions to 0.2.0 migrate them."""
