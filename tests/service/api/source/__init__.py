"""Tests of service/upscaled/api/source."""
