"""The weights that ship: files, manifest and card."""
