"""Errors of the stored state, with texts for a terminal and the log, without secrets."""


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

    is_connection_lost: its server is away, and a transaction may or may not be committed.
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
