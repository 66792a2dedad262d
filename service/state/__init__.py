"""API keys, credits, rates and stored results. SQL appears nowhere else."""

from service.state.credits import Hold
from service.state.database import hide_password
from service.state.errors import StateError
from service.state.keys import ApiKey, ListedKey
from service.state.results import StoredResult
from service.state.store import State, Swept, open_state

__all__ = [
    "ApiKey",
    "Hold",
    "ListedKey",
    "State",
    "StateError",
    "StoredResult",
    "Swept",
    "hide_password",
    "open_state",
]
