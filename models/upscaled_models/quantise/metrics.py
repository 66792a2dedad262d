"""Metrics of pictures that need no network: luma PSNR against a truth, and NIQE without one.

NIQE (Mittal, Soundararajan, Bovik, "Making a 'Completely Blind' Image Quality Analyzer", IEEE
Signal Processing Letters 20(3), 2013, whose equations are numbered below) measures how far a
picture's statistics are from those of natural photographs, by the authors' own model, as basicsr
1.4.2 contains it. Results agree with that package's to 1e-3 (tested), in its precision.
"""

import functools
import io
import math
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from upscaled_models.quantise.installed import PackagedFile, read_packaged
from upscaled_models.quantise.tracks import Pixels

Block = NDArray[np.float32]
Values = NDArray[np.float64]
Plane = NDArray[np.float64]

BLOCK_PX: Final = 96
"""Side of the blocks whose statistics are fitted: the authors' recommendation."""

PARAMETERS: Final = PackagedFile(
    package="basicsr",
    path="basicsr/metrics/niqe_pris_params.npz",
    sha256="2a7c182a68c9e7f1b2e2e5ec723279d6f65d912b6fcaf37eb2bf03d7367c4296",
)

NEIGHBOURS: Final = ((0, 1), (1, 0), (1, 1), (1, -1))
"""Shifts (rows, columns) of the neighbours whose products are fitted: figure 1 of the paper."""


def luma(pixels: Pixels) -> Plane:
    """Convert `[h, w, 3]` uint8 RGB to ITU-R BT.601 luma, 16 to 235, as MATLAB's rgb2ycbcr does."""
    weights = np.array([65.481, 128.553, 24.966]) / 255
    return np.asarray(16 + pixels.astype(np.float64) @ weights)


def psnr_db(plane: Plane, truth: Plane) -> float:
    """Return the peak signal-to-noise ratio for a peak of 255; infinite for equal planes."""
    error = float(np.mean(np.square(plane - truth)))
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))


@dataclass(frozen=True)
class NaturalModel:
    """The multivariate Gaussian of natural photographs' features, and the window of the fit."""

    mean: Values
    """`[36]`."""
    covariance: Values
    """`[36, 36]`."""
    window: Values
    """`[7, 7]`, a Gaussian that sums to 1."""


@functools.cache
def read_natural_model() -> NaturalModel:
    with np.load(io.BytesIO(read_packaged(PARAMETERS)), allow_pickle=False) as stored:
        return NaturalModel(
            mean=stored["mu_pris_param"].reshape(-1),
            covariance=stored["cov_pris_param"],
            window=stored["gaussian_window"],
        )


def niqe(pixels: Pixels, model: NaturalModel) -> float:
    """Return the NIQE of an `[h, w, 3]` uint8 RGB picture: 0 upwards, lower is more natural.

    Raises:
        ValueError: fewer than two blocks of 96x96 px fit, whose covariance is not defined.
    """
    height, width = pixels.shape[:2]
    rows, columns = height // BLOCK_PX, width // BLOCK_PX
    if rows < 1 or columns < 1 or rows * columns < 2:
        raise ValueError(f"{width}x{height} px hold fewer than two blocks of {BLOCK_PX} px")
    cut = pixels[: rows * BLOCK_PX, : columns * BLOCK_PX]
    plane = np.rint(luma(cut).astype(np.float32))  # whole levels, as the model was fitted
    fine = _features_of_blocks(plane, model.window, BLOCK_PX)
    coarse = _features_of_blocks(_halve(plane), model.window, BLOCK_PX // 2)
    features = np.concatenate([fine, coarse], axis=1)
    return _distance(features, model)


def _distance(features: Values, model: NaturalModel) -> float:
    """Return the distance of the features to the natural ones, equation 10; NaN: flat blocks."""
    whole = features[~np.isnan(features).any(axis=1)]
    if len(whole) < 2:
        return math.nan
    difference = model.mean - np.nanmean(features, axis=0)
    inverse = np.linalg.pinv((model.covariance + np.cov(whole, rowvar=False)) / 2)
    return float(np.sqrt(difference @ inverse @ difference))


def _features_of_blocks(plane: Block, window: Values, side: int) -> Values:
    """Return 18 features of each block, `[blocks, 18]`, of the normalised plane: (1)."""
    mean = _filtered(plane, window)
    spread = np.sqrt(np.abs(_filtered(np.square(plane), window) - np.square(mean)))
    normalised: Block = np.asarray((plane - mean) / (spread + 1), np.float32)
    height, width = plane.shape
    return np.array(
        [
            _features(normalised[top : top + side, left : left + side])
            for left in range(0, width, side)
            for top in range(0, height, side)
        ]
    )


def _filtered(plane: Block, window: Values) -> Block:
    """Correlate in float64, borders repeated, and round to float32."""
    wide = cv2.filter2D(plane.astype(np.float64), -1, window, borderType=cv2.BORDER_REPLICATE)
    return wide.astype(np.float32)


def _features(block: Block) -> list[float]:
    """Return the shape and width of a block's values, then of 4 products with neighbours."""
    shape, left, right = _fit(block)
    features = [shape, (left + right) / 2]
    for shift in NEIGHBOURS:
        shape, left, right = _fit(block * np.roll(block, shift, axis=(0, 1)))
        mean = (right - left) * math.gamma(2 / shape) / math.gamma(1 / shape)  # (8)
        features += [shape, mean, left, right]
    return features


def _fit(values: Block) -> tuple[float, float, float]:
    """Fit an asymmetric generalised Gaussian by moments, (7): shape, left and right width.

    The widths are NaN for values of which none is negative or none positive.
    """
    shapes, ratios = _moment_ratios()
    squares = np.square(values)
    negative, positive = squares[values < 0], squares[values > 0]
    if not negative.size or not positive.size:
        return float(shapes[0]), math.nan, math.nan
    left, right = float(np.sqrt(negative.mean())), float(np.sqrt(positive.mean()))
    ratio = float(np.abs(values).mean()) ** 2 / float(squares.mean())
    skew = left / right
    ratio *= (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    shape = float(shapes[np.argmin(np.square(ratios - ratio))])
    width = math.sqrt(math.gamma(1 / shape) / math.gamma(3 / shape))
    return shape, left * width, right * width


@functools.cache
def _moment_ratios() -> tuple[Values, Values]:
    """Return shapes from 0.2 to 10, and the squared mean over the mean square of each."""
    shapes = np.arange(0.2, 10.001, 0.001)
    ratios = [math.gamma(2 / a) ** 2 / (math.gamma(1 / a) * math.gamma(3 / a)) for a in shapes]
    return shapes, np.array(ratios)


def _halve(plane: Block) -> Block:
    """Shrink by 2 as MATLAB's imresize does: bicubic (a = -0.5), anti-aliased, borders mirrored."""
    distances = np.abs(np.arange(-3.5, 4)) / 2
    near = 1.5 * distances**3 - 2.5 * distances**2 + 1
    far = -0.5 * distances**3 + 2.5 * distances**2 - 4 * distances + 2
    taps = np.where(distances <= 1, near, far)
    taps /= taps.sum()
    wide = cv2.copyMakeBorder(plane.astype(np.float64), 3, 3, 3, 3, cv2.BORDER_REFLECT)
    down = sum(tap * wide[k : wide.shape[0] - 7 + k : 2] for k, tap in enumerate(taps))
    down = np.asarray(down)
    across = sum(tap * down[:, k : down.shape[1] - 7 + k : 2] for k, tap in enumerate(taps))
    return np.asarray(across).astype(np.float32)
