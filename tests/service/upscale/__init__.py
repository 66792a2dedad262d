"""Tests of service/upscaled/upscale."""
