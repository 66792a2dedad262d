"""Denoise strength: two networks of one shape mixed weight by weight.

Deep network interpolation (Wang et al., arXiv:1811.10515), as Real-ESRGAN uses it for
`realesr-general-x4v3`: one member removes noise, the other (`wdn`) keeps it.
"""

from collections.abc import Mapping

from torch import Tensor

from upscaled_models.errors import WeightsError


def mix_states(
    general: Mapping[str, Tensor], wdn: Mapping[str, Tensor], denoise: float
) -> dict[str, Tensor]:
    """`denoise * general + (1 - denoise) * wdn`, for every weight. `denoise` is in 0..1.

    Raises:
        WeightsError: `denoise` out of range, or the two do not have the same keys and shapes.
    """
    if not 0.0 <= denoise <= 1.0:
        raise WeightsError(f"denoise must be in 0..1, not {denoise}")
    for key in sorted(general.keys() | wdn.keys()):
        if key not in general or key not in wdn or general[key].shape != wdn[key].shape:
            raise WeightsError(f"the two networks of a denoise mix differ at {key}")
    return {key: denoise * general[key] + (1.0 - denoise) * wdn[key] for key in general}
