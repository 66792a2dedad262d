"""Errors of models and engines. Loads no torch, so that every command can catch them.

    ModelError
    ├── UnknownModel   no model of that name
    ├── ModelRefused   a name or file that the store refuses
    ├── WeightsError   a weights file that cannot be used: wrong hash, keys, shapes, or damaged
    └── FetchError     a download that failed or was not what it should be

    EngineError
    ├── DeviceUnavailable   the device that was chosen is not on this machine
    ├── BackendUnavailable  a backend that this machine cannot compile or run
    ├── EngineOutOfMemory   too little memory on the device for a batch of this size
    └── ResultNotFinite     the network's result holds NaN or infinity

Each text is written for the operator: it names the file, and the key, URL or hash concerned.
"""


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
