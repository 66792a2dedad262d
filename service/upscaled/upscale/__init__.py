"""Tiles, windows and the loop over one image."""
