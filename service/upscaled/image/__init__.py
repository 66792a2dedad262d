"""Read headers, decode files to upright pixels, encode results; colour, alpha, metadata."""
