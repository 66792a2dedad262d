"""The client of S3-compatible buckets: how to connect, create objects and describe failures."""
