"""The autotuner: find the fastest candidate that computes float32's picture on this machine."""
