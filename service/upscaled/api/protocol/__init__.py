"""Speak strict HTTP/1.1 with one client: heads, bodies, answers, and limits on all of them."""
