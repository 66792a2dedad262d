"""Damaged files without end, sent to a real server: `scripts/fuzz`."""
