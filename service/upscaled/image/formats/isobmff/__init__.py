"""AVIF and HEIC files: boxes, items, transforms and colours of ISO base media files."""
