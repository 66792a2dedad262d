"""Errors of models and engines, written for the operator. Loads no torch."""


class ModelError(Exception):
    """A model that cannot be used, with the reason in its text."""


class UnknownModel(ModelError):
    """No model of that name; the text lists near names."""


class ModelRefused(ModelError):
    """A name that is in use or unsafe, or a file that is not the one its name promises."""


class WeightsError(ModelError):
    """A weights file that cannot be used; the text names the file and the key."""


class FetchError(ModelError):
    """A download that failed; the text names URL, hash and the path to copy the file to."""


class EngineError(Exception):
    """A network that cannot be run, with the reason in its text."""


class DeviceUnavailable(EngineError):
    """A device that this machine does not have; the text names what it has."""


class BackendUnavailable(EngineError):
    """A backend that cannot be compiled or run on this machine."""


class EngineOutOfMemory(EngineError):
    """The device lacks memory for a batch of this size; a smaller one may still fit."""


class ResultNotFinite(EngineError):
    """The network's result holds NaN or infinity, in float32 or in an engine under trial."""
