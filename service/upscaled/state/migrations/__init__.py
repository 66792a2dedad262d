"""How a database of an earlier version becomes one of this version."""

# The revision of `schema.py`. A test compares both with the last file in versions/.
SCHEMA_REVISION = "0003"
