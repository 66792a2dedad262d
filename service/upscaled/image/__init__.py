"""Encoded bytes to upright pixels and back: probe, decode, encode; orientation, colour, alpha."""
