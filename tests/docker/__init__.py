"""The container: built and run for real, without a Docker engine."""
