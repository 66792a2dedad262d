"""The CUDA backend: our convolution kernel on NVIDIA GPUs, driven by torch."""
