"""Tests of service/upscaled/api/wire."""
