"""Tests of service/upscaled/image."""
