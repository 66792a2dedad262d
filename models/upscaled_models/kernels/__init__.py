"""Networks of 3x3 convolutions on NVIDIA GPUs, through one kernel of our own."""
