"""The front end's side of the worker processes."""
