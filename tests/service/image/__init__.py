"""Tests of service/image."""
