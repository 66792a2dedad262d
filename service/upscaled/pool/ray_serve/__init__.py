"""Upscale on the replicas of a Ray Serve deployment; the only package that imports ray."""
