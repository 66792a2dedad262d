"""The inside of a worker process: its jobs, and its connection to the front end."""
