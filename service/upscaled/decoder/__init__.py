"""Decode untrusted files in disposable processes."""
