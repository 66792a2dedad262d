"""Errors of the stored state, with texts for a terminal and for the log.

    StateError
    ├── DatabaseRefused    the database cannot be used: wrong URL, newer version, missing driver
    ├── DatabaseFailed     it fails at work: full disk, lost connection, lock, damage
    │   └── DatabaseLost   its file was deleted or replaced while it was in use
    ├── FolderUnusable     a folder of the data folder takes no file
    ├── UnreadableChoice   what is stored for `auto` is damaged, or another version's
    ├── InvalidName        an API key's name breaks the rules
    ├── InvalidSecret      a secret is not of the form of our keys
    ├── NameTaken          an active API key has that name
    ├── UnknownName        no active API key has that name
    ├── InvalidAmount      credits out of range
    ├── InvalidRate        a rate or burst out of range
    ├── InvalidScope       a scope that there is not, or none at all
    ├── InvalidExpiry      an end of a key or secret that is past or too far away
    ├── DuplicateRequest   a request id was used for a hold before
    └── HoldReleased       a hold was given back before it was captured

None of them holds a secret or a password.
"""


class StateError(Exception):
    """The stored state cannot do what is needed; the text says why."""


def describe_failure(error: StateError | OSError) -> str:
    """Say why the state cannot be used, naming the file or folder that an OSError is about."""
    if isinstance(error, OSError) and error.filename:
        return f"cannot use {error.filename}: {error.strerror}"
    return str(error)


class DatabaseRefused(StateError):
    pass


class DatabaseFailed(StateError):
    """The database fails at work.

    is_connection_lost: its server is away, perhaps only for a moment, and a transaction under way
    may or may not have been committed.
    """

    def __init__(self, text: str, *, is_connection_lost: bool = False) -> None:
        super().__init__(text)
        self.is_connection_lost = is_connection_lost


class DatabaseLost(DatabaseFailed):
    pass


class FolderUnusable(StateError):
    pass


class UnreadableChoice(StateError):
    pass


class InvalidName(StateError):
    pass


class InvalidSecret(StateError):
    pass


class NameTaken(StateError):
    pass


class UnknownName(StateError):
    pass


class InvalidAmount(StateError):
    pass


class InvalidRate(StateError):
    pass


class InvalidScope(StateError):
    pass


class InvalidExpiry(StateError):
    pass


class DuplicateRequest(StateError):
    pass


class HoldReleased(StateError):
    pass
