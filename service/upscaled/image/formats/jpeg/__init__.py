"""Read and write JPEG files (ITU-T T.81): structure, damage, quality."""
