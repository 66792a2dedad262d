"""Match a compact network's graph, walked from its sum back to the picture."""

from upscaled_models.families import Shape
from upscaled_models.families.compact import LEAK, srvgg_shape
from upscaled_models.ncnn.binary import Weights
from upscaled_models.ncnn.checks import GraphCheck, Tensors
from upscaled_models.ncnn.param import BadParam
from upscaled_models.ncnn.values import Activated, Convolved, Enlarged, Input, Summed, Unfolded

_COMPACT = GraphCheck("a compact network")


def match_compact(result: Summed) -> tuple[Shape, Tensors]:
    """Return the shape and the state dict (`networks.compact`) of the network with this result."""
    shuffled, picture = _COMPACT.two_terms(result, Unfolded, 1.0)
    nearest = _COMPACT.kind(picture, Enlarged, "the enlarged picture")
    image = _COMPACT.kind(nearest.source, Input, "the input")
    if shuffled.factor != nearest.factor:
        raise BadParam(f"{nearest.layer}: enlarges {nearest.factor} times, not {shuffled.factor}")
    convolutions, steps = _walk_chain(_COMPACT.convolution(shuffled.source), image)
    features = convolutions[0].channels
    *inner, last = convolutions
    tensors: dict[str, Weights] = {}
    for index, convolution in enumerate(inner):
        _COMPACT.named(tensors, f"body.{2 * index}", convolution, features)
    _COMPACT.named(tensors, f"body.{2 * len(inner)}", last, 3 * shuffled.factor**2)
    act_type = _match_activations(steps, tensors)
    return srvgg_shape(shuffled.factor, len(steps) - 1, features, act_type), tensors


def _walk_chain(last: Convolved, image: Input) -> tuple[list[Convolved], list[Activated]]:
    """Return the convolutions and the activations between them, first to last."""
    steps: list[Activated] = []
    convolutions = [last]
    while not isinstance(source := convolutions[-1].source, Input):
        steps.append(_COMPACT.kind(source, Activated, "an activation"))
        convolutions.append(_COMPACT.convolution(steps[-1].source))
    _COMPACT.same(convolutions[-1].source, image)
    if not steps:
        raise BadParam(f"{last.layer}: a compact network has at least two convolutions")
    return convolutions[::-1], steps[::-1]


def _match_activations(steps: list[Activated], tensors: dict[str, Weights]) -> str:
    """Return the one kind of activation in the whole network; PReLU's slopes are weights."""
    kinds = [_activation_of(step) for step in steps]
    for index, (step, kind) in enumerate(zip(steps, kinds, strict=True)):
        if kind != kinds[0]:
            raise BadParam(f"{step.layer}: {kind} in a network that begins with {kinds[0]}")
        if not isinstance(step.slope, float):
            tensors[f"body.{2 * index + 1}.weight"] = step.slope
    return kinds[0]


def _activation_of(step: Activated) -> str:
    if not isinstance(step.slope, float):
        return "prelu"
    if step.slope == 0.0:
        return "relu"
    _COMPACT.slope(step, LEAK)
    return "leakyrelu"
