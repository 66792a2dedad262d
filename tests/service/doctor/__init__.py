"""The doctor's checks: each fault planted for real."""
