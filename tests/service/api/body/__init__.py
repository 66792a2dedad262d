"""Tests of service/api/body."""
