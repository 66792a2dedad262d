"""Headers that every answer has unless its route says otherwise."""

from typing import Final

# What is answered belongs to who asked, and is what its Content-Type says.
DEFAULT_HEADERS: Final = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
