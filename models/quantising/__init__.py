"""Prepares models in 8 bits, once and offline: what they run by is `models.quantised` alone."""
