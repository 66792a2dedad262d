"""Our networks as OpenVINO graphs, and what happens to their results outside of them."""
