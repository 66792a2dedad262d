"""What can go wrong with a model or an engine; loads no torch, so that a command can catch it.

    ModelError
    ├── UnknownModel   no model of that name
    ├── ModelRefused   a name or file the store will not take
    ├── WeightsError   a weights file that cannot be used: wrong hash, keys, shapes, or damaged
    └── FetchError     a download that failed or was not what it should be

    EngineError
    ├── DeviceUnavailable   the device that was chosen is not on this machine
    ├── BackendUnavailable  a backend that this machine cannot compile or run
    ├── EngineOutOfMemory   no room on the device for a batch of this size
    └── ResultNotFinite     the network's result holds NaN or infinity

Each text is written for the operator: it names the file, and the key, URL or hash concerned.
"""


class ModelError(Exception):
    """A model that cannot be had, with the reason in its text."""


class UnknownModel(ModelError):
    """No model of that name; the text lists near names."""


class ModelRefused(ModelError):
    """A name that is taken or unsafe, or a file that is not what its name promises."""


class WeightsError(ModelError):
    """A weights file that cannot be used; the text names the file and the key."""


class FetchError(ModelError):
    """A download that failed; the text names URL, hash and the path to carry the file to."""


class EngineError(Exception):
    """A network that cannot be run, with the reason in its text."""


class DeviceUnavailable(EngineError):
    """A device that this machine does not have; the text names what it has."""


class BackendUnavailable(EngineError):
    """A backend that cannot be compiled or run on this machine."""


class EngineOutOfMemory(EngineError):
    """The device has no room for a batch of this size; a smaller one may still fit."""


class ResultNotFinite(EngineError):
    """The network's result holds NaN or infinity, in float32 or in an engine under trial."""
