"""Tests of service/api/wire."""
