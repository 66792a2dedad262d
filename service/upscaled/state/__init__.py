"""API keys, credits, rates and stored results. All SQL but the batch journal's is here."""

from upscaled.state.clocks import Clocks
from upscaled.state.database_url import hide_password
from upscaled.state.errors import DatabaseFailed, StateError
from upscaled.state.key_rows import ApiKey, ListedKey, Scope
from upscaled.state.keys import LOCAL_KEY_NAME
from upscaled.state.ledger import Hold, PaidResult
from upscaled.state.opening import open_state
from upscaled.state.rate import RateLimit
from upscaled.state.results import OpenedResult, StoredResult
from upscaled.state.store import State, Swept

__all__ = [
    "LOCAL_KEY_NAME",
    "ApiKey",
    "Clocks",
    "DatabaseFailed",
    "Hold",
    "ListedKey",
    "OpenedResult",
    "PaidResult",
    "RateLimit",
    "Scope",
    "State",
    "StateError",
    "StoredResult",
    "Swept",
    "hide_password",
    "open_state",
]
