"""NVIDIA DALI's pipeline on the CPU, as close to the paper's augmentation as DALI gets."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from gluon_tricks.augment.color import PCA_EIGENVALUES, PCA_EIGENVECTORS
from gluon_tricks.data.transforms import IMAGENET_MEAN, IMAGENET_STD
from gluon_tricks.errors import InputError

PACKAGE = "nvidia-dali-cuda120==2.4.0"  # needs no GPU, no driver and no CUDA


def dali_batches(rec: str | Path, idx: str | Path, batch_size: int, threads: int, size: int = 224,
                 seed: int = 0) -> Iterator[np.ndarray]:
    """Endless training batches, (batch_size, 3, size, size) float32, normalized.

    Random crop (area 0.08 to 1, aspect 3/4 to 4/3) while decoding, bilinear resize without
    antialiasing, color jitter, flip, PCA noise, normalization; floats from the jitter on, since
    DALI is faster with them than with integers. DALI rotates the hue, while the paper scales it.
    Records are shuffled through DALI's buffer of 1,024. Raises InputError if DALI is not installed.
    """
    try:
        from nvidia.dali import fn, pipeline_def, types
    except ImportError as error:
        raise InputError(f"the engine dali needs NVIDIA DALI, which cannot be imported ({error}): "
                         f"pip install {PACKAGE}") from error

    def pca_noise():
        # DALI has no matrix product: sum over the components, each a column times its alpha.
        columns = (PCA_EIGENVECTORS * PCA_EIGENVALUES).T.astype(np.float32)
        first, second, third = (
            fn.random.normal(stddev=0.1, shape=[1]) * types.Constant(column, device="cpu")
            for column in columns)
        return first + second + third

    @pipeline_def(batch_size=batch_size, num_threads=threads, device_id=None, seed=seed)
    def pipeline():
        encoded, _ = fn.readers.mxnet(path=[str(rec)], index_path=[str(idx)], random_shuffle=True)
        images = fn.decoders.image_random_crop(
            encoded, device="cpu", output_type=types.RGB, random_area=[0.08, 1.0],
            random_aspect_ratio=[3 / 4, 4 / 3])
        images = fn.resize(images, size=[size, size], interp_type=types.INTERP_LINEAR,
                           antialias=False)
        images = fn.hsv(images, hue=fn.random.uniform(range=[-72.0, 72.0]),  # degrees: 0.4 * 180
                        saturation=fn.random.uniform(range=[0.6, 1.4]),
                        value=fn.random.uniform(range=[0.6, 1.4]), dtype=types.FLOAT)
        # x + noise - mean = x - (mean - noise): the noise needs no extra pass.
        mean = types.Constant(np.float32(IMAGENET_MEAN), device="cpu") - pca_noise()
        return fn.crop_mirror_normalize(images, dtype=types.FLOAT, output_layout="CHW", mean=mean,
                                        std=list(IMAGENET_STD), mirror=fn.random.coin_flip())

    running = pipeline()
    running.build()
    while True:
        images, = running.run()
        yield images.as_array()
