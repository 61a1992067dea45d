"""Color jitter, PCA lighting and normalization of (height, width, 3) RGB float32 in [0, 255].

Nothing is rounded between the steps.
"""

import itertools

import cv2
import numpy as np

from gluon_tricks.augment.rng import SampleRng

# Principal components of ImageNet's RGB values on the [0, 255] scale (AlexNet, section 4.1).
PCA_EIGENVALUES = np.array([55.46, 4.794, 1.148])
PCA_EIGENVECTORS = np.array([[-0.5675, 0.7192, 0.4009],
                             [-0.5808, -0.0045, -0.8140],
                             [-0.5836, -0.6948, 0.4203]])  # one component per column


def draw_hsv_gains(rng: SampleRng, jitter: float = 0.4) -> np.ndarray:
    """Hue, saturation and value gains, uniform in [1 - jitter, 1 + jitter]: (samples, 3)."""
    return rng.uniform(3, 1 - jitter, 1 + jitter)


def hsv_jitter(image: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """Scale hue, saturation and value, each by its own gain (arXiv 1812.01187, section 2.1).

    Hue wraps around the circle; saturation is clipped to [0, 1], value to [0, 255]. image is RGB
    float32 in [0, 255], gains (3,). Returns the same kind of image.
    """
    hue, saturation, value = cv2.split(cv2.cvtColor(image, cv2.COLOR_RGB2HSV))
    hue = np.mod(hue * np.float32(gains[0]), np.float32(360))
    saturation = np.minimum(saturation * np.float32(gains[1]), np.float32(1))
    value = np.minimum(value * np.float32(gains[2]), np.float32(255))
    return cv2.cvtColor(cv2.merge([hue, saturation, value]), cv2.COLOR_HSV2RGB)


GRAY = np.float32([0.299, 0.587, 0.114])  # of R, G and B
_ORDERS = tuple(itertools.permutations(range(3)))


def draw_orders(rng: SampleRng) -> np.ndarray:
    """The order of GluonCV's three jitter steps, uniform over all orders: (samples, 3) int."""
    return np.array(_ORDERS)[(rng.uniform(1)[:, 0] * len(_ORDERS)).astype(int)]


def gluoncv_jitter(image: np.ndarray, gains: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Gluon's RandomColorJitter instead of the paper's: brightness, contrast and saturation.

        brightness   g x
        contrast     g x + (1 - g) * mean of the image's gray
        saturation   g x + (1 - g) * the pixel's gray

    gains (3,) belong to these three, `order` (3,) says in which order they run. image is RGB
    float32 in [0, 255], clipped to that after each step, as Gluon does in uint8, but not rounded.
    (MXNet 1.9.1 mistakenly uses only the blue share of a pixel's gray.) Returns the same kind of
    image.
    """
    for step in order:
        gain = np.float32(gains[step])
        towards = 0 if step == 0 else image @ GRAY
        if step == 1:
            towards = towards.mean(dtype=np.float64).astype(np.float32)
        elif step == 2:
            towards = towards[..., None]
        image = np.clip(gain * image + (1 - gain) * towards, 0, 255)
    return image


def draw_pca_alphas(rng: SampleRng, sigma: float = 0.1) -> np.ndarray:
    """Coefficients of the three principal components, from N(0, sigma): (samples, 3)."""
    return rng.normal(3, sigma)


def pca_light(alphas: np.ndarray) -> np.ndarray:
    """What PCA lighting adds to R, G and B: eigenvectors @ (alphas * eigenvalues).

    alphas and the result are (..., 3) float64.
    """
    return (alphas * PCA_EIGENVALUES) @ PCA_EIGENVECTORS.T


def pca_lighting(image: np.ndarray, alphas: np.ndarray) -> np.ndarray:
    """Add one color, `pca_light(alphas)` with alphas (3,), to all pixels, without clipping.

    "PCA noise" of arXiv 1812.01187, section 2.1; AlexNet, section 4.1.
    """
    return image + pca_light(alphas).astype(np.float32)


def normalize(image: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...]) -> np.ndarray:
    """(image - mean) / std per channel; float32."""
    return (image - np.float32(mean)) / np.float32(std)
