"""The OpenVINO backend: networks as graphs on CPUs, in floats or 8 bits."""
