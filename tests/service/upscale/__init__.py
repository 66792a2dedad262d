"""Tests of service/upscale."""
