"""Tests of service/upscaled/engine."""
