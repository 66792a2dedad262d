"""Migrations from each released schema revision to this version's."""

# The revision of `schema.py`. A test compares both with the last file in versions/.
SCHEMA_REVISION = "0015"
