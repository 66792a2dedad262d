"""The inside of a worker process: its jobs, and what it does while it has none."""
