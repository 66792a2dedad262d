"""Read AVIF and HEIC files, both ISO base media files: boxes, items, transforms, colours."""
