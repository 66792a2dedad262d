"""Untrusted files are decoded in disposable processes that own nothing and may die."""
