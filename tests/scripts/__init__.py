"""The commands in scripts/."""
