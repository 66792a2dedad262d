"""API keys, credits, rates and stored results. SQL appears nowhere else."""

from service.state.clocks import Clocks
from service.state.credits import PaidResult
from service.state.database import hide_password
from service.state.errors import DatabaseFailed, StateError
from service.state.keys import ApiKey, ListedKey
from service.state.owed import Hold
from service.state.rate import RateLimit
from service.state.results import StoredResult
from service.state.store import State, Swept, open_state

__all__ = [
    "ApiKey",
    "Clocks",
    "DatabaseFailed",
    "Hold",
    "ListedKey",
    "PaidResult",
    "RateLimit",
    "State",
    "StateError",
    "StoredResult",
    "Swept",
    "hide_password",
    "open_state",
]
