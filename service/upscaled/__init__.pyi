from upscaled.config import Settings as Settings
from upscaled.config import SettingsError as SettingsError
from upscaled.config import load_settings as load_settings
from upscaled.errors import InternalError as InternalError
from upscaled.errors import InvalidParameter as InvalidParameter
from upscaled.errors import MalformedImage as MalformedImage
from upscaled.errors import ResolutionTooHigh as ResolutionTooHigh
from upscaled.errors import ServiceError as ServiceError
from upscaled.errors import UnsupportedImageFormat as UnsupportedImageFormat
from upscaled.upscale.call_options import OutputOptions as OutputOptions
from upscaled.upscale.concurrency import Cancellation as Cancellation
from upscaled.upscale.concurrency import Cancelled as Cancelled
from upscaled.upscale.result import Result as Result
from upscaled.upscale.result import Timings as Timings
from upscaled.upscale.upscaler import Upscaler as Upscaler
from upscaled_models.errors import EngineOutOfMemory as EngineOutOfMemory
from upscaled_models.errors import ModelError as ModelError

__version__: str
__all__: list[str]
