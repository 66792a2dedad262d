"""Whether an image's size may be upscaled, judged from its header."""

from upscaled.config import MIN_INPUT_SIDE_PX, Settings
from upscaled.errors import InvalidParameter, ResolutionTooHigh
from upscaled.image.types import ImageInfo


def judge_size(info: ImageInfo, scale: int, settings: Settings) -> None:
    """
    Raises:
        InvalidParameter: a side under 64 px, whatever the other one is.
        ResolutionTooHigh: a side over the limit of this scale.
    """
    if min(info.width_px, info.height_px) < MIN_INPUT_SIDE_PX:
        raise InvalidParameter(
            f"Image too small: at least {MIN_INPUT_SIDE_PX}x{MIN_INPUT_SIDE_PX} pixels"
        )
    max_side_px = settings.max_input_side_px(scale)
    if max(info.width_px, info.height_px) > max_side_px:
        raise ResolutionTooHigh(
            f"Image resolution too high: at most {max_side_px}x{max_side_px} pixels "
            f"for scale {scale}"
        )
