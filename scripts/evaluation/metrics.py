"""Metrics of the luma plane, as the field reports them."""

import cv2
import numpy as np

from upscaled_models.quantise.metrics import Plane


def ssim(plane: Plane, truth: Plane) -> float:
    """Return the mean structural similarity (Wang et al. 2004): 11x11 Gaussian of sigma 1.5, no
    padding."""
    first, second = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_a, mean_b = _window_mean(plane), _window_mean(truth)
    spread_a = _window_mean(plane * plane) - mean_a**2
    spread_b = _window_mean(truth * truth) - mean_b**2
    shared = _window_mean(plane * truth) - mean_a * mean_b
    similar = (2 * mean_a * mean_b + first) * (2 * shared + second)
    scale = (mean_a**2 + mean_b**2 + first) * (spread_a + spread_b + second)
    return float(np.mean(similar / scale))


def acutance(plane: Plane) -> float:
    """Return the mean gradient magnitude by forward differences, in levels per pixel."""
    across = plane[:-1, 1:] - plane[:-1, :-1]
    down = plane[1:, :-1] - plane[:-1, :-1]
    return float(np.mean(np.hypot(across, down)))


def checkerboard(plane: Plane) -> float:
    """Return the mean amplitude of alternation from pixel to pixel across and down, in levels.

    A fine checkerboard raises acutance; this metric reveals it.
    """
    across = plane[:, 1:] - plane[:, :-1]
    return float(np.mean(np.abs(across[1:] - across[:-1]))) / 4


def _window_mean(plane: Plane) -> Plane:
    taps = cv2.getGaussianKernel(11, 1.5)
    smooth = cv2.sepFilter2D(plane, cv2.CV_64F, taps, taps)
    return np.asarray(smooth[5:-5, 5:-5])
