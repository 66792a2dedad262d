"""Tests of service/api/source."""
