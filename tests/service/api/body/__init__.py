"""Tests of service/upscaled/api/body."""
