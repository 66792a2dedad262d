"""One module per step: a release's, then those since. A released revision is never changed."""
