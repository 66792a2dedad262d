"""Serve strict HTTP/1.1 to one client: heads, bodies, answers, and limits on all of them."""
