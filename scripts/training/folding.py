"""Make a folded x2 network of an x4 network: the first weights of its training."""

import torch

from upscaled_models.networks.plain import PlainNet

FOLD = 2
STEPS_BETWEEN_SQUARES = 2
"""A step of the x4 network's picture spans two steps of a picture of twice its size."""


@torch.no_grad()
def fold_network(network: PlainNet) -> PlainNet:
    """Return a network of half the scale that folds squares of 2x2 pixels into channels.

    To the convolutions its input looks like the x4 network's for the picture at half of its size: a
    step between squares is the mean of the four steps in one, twice, because it spans two of them.
    So the head reads each difference at all four places of a square with half of its weight. The
    rest is the same, for both shuffles give 4x4 result pixels to a trunk pixel. Limited differences
    are not linear, and the enlarged picture that is added is another one: the result is near enough
    to start from, not a result to use.

    Args:
        network: of an even scale, without folding.

    Raises:
        ValueError: the network folds already, or has an odd scale.
    """
    if network.fold != 1 or network.scale % FOLD:
        raise ValueError(
            f"a network of scale {network.scale} that folds {network.fold}x{network.fold} pixels "
            f"cannot be folded: the scale must be even and the fold 1"
        )
    folded = PlainNet(network.features, network.layers, network.scale // FOLD, FOLD)
    places = FOLD**2
    state = network.state_dict()
    head = state["head.weight"].repeat_interleave(places, dim=1)
    folded.load_state_dict(state | {"head.weight": head * (STEPS_BETWEEN_SQUARES / places)})
    return folded.eval()
