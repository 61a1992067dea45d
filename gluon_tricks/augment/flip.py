"""Mirroring (arXiv 1812.01187, section 2.1)."""

import cv2
import numpy as np

from gluon_tricks.augment.rng import SampleRng


def draw_flips(rng: SampleRng, probability: float = 0.5) -> np.ndarray:
    """Draw whether each sample is mirrored: (samples,) bool."""
    return rng.uniform(1)[:, 0] < probability


def flip(image: np.ndarray) -> np.ndarray:
    """Mirror (height, width, 3) left to right."""
    return cv2.flip(image, 1)
