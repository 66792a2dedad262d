"""The HTTP service: endpoints, their contract, and what surrounds them. Loads no torch."""
