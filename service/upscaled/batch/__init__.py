"""Upscale many files without HTTP: find them, skip what is done, and do the rest."""
