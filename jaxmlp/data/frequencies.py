"""Images as their lowest frequencies: fewer numbers, and each image is turned into them by itself alone."""

from dataclasses import replace

import numpy as np
from jaxtyping import Float, Num

from jaxmlp.data.dataset import Dataset, Examples
from jaxmlp.errors import DataError

SIDE = 10


def lowest_frequencies(images: Num[np.ndarray, "N H W"]) -> Float[np.ndarray, "N 99"]:
    """The 99 lowest frequencies but for the mean: the 10 x 10 first of the orthonormal cosine transform (DCT-II).

        Y_uv = c_u c_v sum_ij X_ij cos(pi (2i + 1) u / 2H) cos(pi (2j + 1) v / 2W)        u, v = 0..9, not both 0

    with c_0 = sqrt(1/H), c_u = sqrt(2/H), and W for v. Grey levels, uint8, count as 0 to 1. Nothing is estimated from
    other images: that is why private training may use it for free, as it may not a principal component analysis.

    >>> lowest_frequencies(np.full((1, 28, 28), 255, np.uint8)).shape
    (1, 99)
    """
    H, W = images.shape[1:]
    levels = images * np.float32(1 / 255) if images.dtype == np.uint8 else images.astype(np.float32)
    Y: np.ndarray = cosines(H) @ levels @ cosines(W).T
    return Y.reshape(len(images), -1)[:, 1:]


def cosines(n: int) -> Float[np.ndarray, "10 n"]:
    """The first 10 rows of the orthonormal DCT-II of length n: c_u cos(pi (2i + 1) u / 2n)."""
    u, i = np.arange(SIDE)[:, None], np.arange(n)[None, :]
    c = np.sqrt(np.where(u == 0, 1, 2) / n)
    return (c * np.cos(np.pi * (2 * i + 1) * u / (2 * n))).astype(np.float32)


def transformed(dataset: Dataset) -> Dataset:
    """A data set of images as one of their lowest frequencies.

    Raises:
        DataError: where examples are no images of 10 x 10 and more.
    """
    if len(dataset.shape) != 2 or min(dataset.shape) < SIDE:
        shape = " x ".join(map(str, dataset.shape))
        raise DataError(f"data.source is 'dct:{dataset.name}', of examples {shape}: expected images, 10 x 10 or larger")

    def part(examples: Examples) -> Examples:
        return examples._replace(inputs=lowest_frequencies(examples.inputs.reshape(-1, *dataset.shape)))

    return replace(
        dataset,
        name=f"dct:{dataset.name}",
        shape=(SIDE * SIDE - 1,),
        train=part(dataset.train),
        test=part(dataset.test),
    )
