"""Fetch the image behind a URL, bounded in size, time and work, and guarded at every connection."""
