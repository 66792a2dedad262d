"""Run an RRDB network as steps of the CUDA kernel: 16 bits, but the trunk's sum in float32."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from upscaled_models.backends.cuda.layout import PlaneLayout, make_planes, make_trunk, to_planes
from upscaled_models.backends.cuda.step import KernelLayer, KernelStep, Target
from upscaled_models.families.rrdb import RESIDUAL_SCALE


@dataclass(frozen=True, slots=True)
class KernelRrdb:
    """An RRDB network on the kernel. layers: by the names of the modules of `RRDBNet`."""

    layers: dict[str, KernelLayer]
    blocks: int
    fold: int
    target: Target

    def __call__(self, pixels: Tensor) -> Tensor:
        if self.fold > 1:
            pixels = F.pixel_unshuffle(pixels, self.fold)
        count, _, height, width = pixels.shape
        layout = PlaneLayout(height, width)
        features = self._run_trunk(to_planes(pixels, layout, self.target.dtype), count, layout)
        return self._enlarge(features, count, layout)

    def _run_trunk(self, source: Tensor, count: int, layout: PlaneLayout) -> Tensor:
        """Compute the planes of the features.

        Two hold the trunk in turn: old values are read while new ones are written.
        """
        layers = self.layers
        features = layers["conv_first"].columns * 8
        growth = layers["body.0.rdb1.conv1"].columns * 8
        device = source.device
        old, new = (
            make_planes(count, features, layout, self.target.dtype, device) for _ in range(2)
        )
        grown = make_planes(count, 4 * growth, layout, self.target.dtype, device)
        shallow, outer, inner = (make_trunk(count, features, layout, device) for _ in range(3))
        self.target.launch(
            KernelStep(layers["conv_first"], (source,), layout, planes=old, trunk=shallow)
        )
        before = shallow
        for index in range(self.blocks):
            for number, residual in ((1, before), (2, inner), (3, inner)):
                self._grow(f"body.{index}.rdb{number}", old, grown, layout)
                is_last = number == 3
                scale = RESIDUAL_SCALE
                self.target.launch(
                    KernelStep(
                        layers[f"body.{index}.rdb{number}.conv5"],
                        (old, grown),
                        layout,
                        planes=new,
                        trunk=outer if is_last else inner,
                        residual=residual,
                        shortcut=before if is_last else None,
                        gain=scale * scale if is_last else scale,
                        residual_gain=scale if is_last else 1.0,
                    )
                )
                old, new = new, old
            before = outer
        self.target.launch(
            KernelStep(layers["conv_body"], (old,), layout, planes=new, residual=shallow)
        )
        return new

    def _grow(self, name: str, seen: Tensor, grown: Tensor, layout: PlaneLayout) -> None:
        planes = self.layers[f"{name}.conv1"].columns
        for number in range(4):
            self.target.launch(
                KernelStep(
                    self.layers[f"{name}.conv{number + 1}"],
                    (seen, grown[:, : number * planes]) if number else (seen,),
                    layout,
                    planes=grown[:, number * planes : (number + 1) * planes],
                )
            )

    def _enlarge(self, features: Tensor, count: int, layout: PlaneLayout) -> Tensor:
        channels, device = features.shape[1] * 8, features.device
        for name in ("conv_up1", "conv_up2"):
            layout = layout.doubled()
            planes = make_planes(count, channels, layout, self.target.dtype, device)
            self.target.launch(
                KernelStep(self.layers[name], (features,), layout, planes, is_doubled=True)
            )
            features = planes
        sharp = make_planes(count, channels, layout, self.target.dtype, device)
        self.target.launch(KernelStep(self.layers["conv_hr"], (features,), layout, planes=sharp))
        picture = torch.empty((count, 3, layout.height, layout.width), device=device)
        self.target.launch(KernelStep(self.layers["conv_last"], (sharp,), layout, picture=picture))
        return picture
