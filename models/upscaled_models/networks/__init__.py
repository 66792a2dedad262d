"""The networks as torch modules and OpenVINO graphs, and the tables of them by family."""
