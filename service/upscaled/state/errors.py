"""Errors of the stored state, with texts for a terminal and the log, without secrets."""


class StateError(Exception):
    """The stored state cannot do what is needed; the text says why."""


def describe_failure(error: StateError | OSError) -> str:
    """Say why the state cannot be used, naming the file or folder that an OSError is about."""
    if isinstance(error, OSError) and error.filename:
        reason = "is no folder" if isinstance(error, FileExistsError) else error.strerror
        return f"cannot use {error.filename}: {reason}"
    return str(error)


class DatabaseRefused(StateError):
    """The database cannot be used: wrong URL, newer version, missing driver."""


class DatabaseFailed(StateError):
    """The database fails at work.

    is_connection_lost: its server is away, and a transaction may or may not be committed.
    """

    def __init__(self, text: str, *, is_connection_lost: bool = False) -> None:
        super().__init__(text)
        self.is_connection_lost = is_connection_lost


class FolderUnusable(StateError):
    """No file can be written to a folder of the data folder."""


class UnreadableChoice(StateError):
    """What is stored for `auto` is damaged, or another version's."""


class InvalidValue(StateError):
    """A name, secret, scope, rate, amount or time of an API key is one that no key may have."""


class NameTaken(StateError):
    """An active API key has that name."""


class UnknownName(StateError):
    """No active API key has that name."""


class HoldReleased(StateError):
    """A hold was given back before it was captured."""
