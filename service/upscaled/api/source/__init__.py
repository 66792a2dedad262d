"""An `image_url`: what it may look like, where it may lead, and fetching it."""
