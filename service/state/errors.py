"""What may go wrong with the stored state, for people at a terminal and for the log.

    StateError
    ├── DatabaseRefused    the database cannot be used: wrong URL, newer version, missing driver
    ├── InvalidName        an API key's name breaks the rules
    ├── NameTaken          an active API key has that name
    ├── UnknownName        no active API key has that name
    ├── InvalidAmount      credits out of range
    ├── DuplicateRequest   a request id was used for a hold before
    └── HoldReleased       a hold was given back before it was captured

None of them holds a secret or a password.
"""


class StateError(Exception):
    """The stored state cannot do what was asked; the text says why."""


class DatabaseRefused(StateError):
    pass


class InvalidName(StateError):
    pass


class NameTaken(StateError):
    pass


class UnknownName(StateError):
    pass


class InvalidAmount(StateError):
    pass


class DuplicateRequest(StateError):
    pass


class HoldReleased(StateError):
    pass
