"""The torch backend: CPUs, NVIDIA GPUs and Apple's."""
