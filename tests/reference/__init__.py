"""The published implementation, run beside ours to compare results."""
