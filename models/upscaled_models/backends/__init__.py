"""Backends run a network on a device: torch, OpenVINO, or our CUDA kernel; each in one folder."""
