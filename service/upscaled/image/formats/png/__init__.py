"""Read and write PNG files: structure, pixels, colours."""
