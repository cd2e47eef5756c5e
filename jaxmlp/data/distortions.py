"""Random distortions of images, on the device, so that a network meets no training image twice.

Every output pixel at place p (x to the right, y down, measured from the middle) shows the image at

    q = S p + t + u(p)          S = R(angle) [[1, shear], [0, 1]] diag(1 / s_x, 1 / s_y)

with t the shift, R a rotation, s the factors of scaling, and u a smooth random field (Simard, Steinkraus, Platt, "Best
practices for convolutional neural networks applied to visual document analysis", 2003): of each pixel and direction a
number is drawn evenly from -1 to 1, the field is convolved with a Gaussian of deviation sigma, and multiplied by alpha.
Between pixels the image is interpolated linearly, and beyond its edges it is 0. By a positive angle the picture turns
counterclockwise, by a positive t it moves left and up.
"""

import math
import numbers
from dataclasses import dataclass, fields

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from jaxmlp.errors import ExperimentError
from jaxmlp.network import short_numbers

SMOOTHEST = 1000
"""Pixels of `sigma` at most: by then an image is moved as a whole."""


@dataclass(frozen=True)
class Distort:
    """How training images are distorted, anew in every step; by default not at all.

    Attributes:
        shift: Pixels, at most, in each direction.
        rotation: Degrees, at most, either way.
        scaling: Width and height change by this share at most: 0.15 draws factors from 0.85 to 1.15.
        shear: Pixels sideways a pixel of height, at most.
        alpha: Strength of elastic distortions, in pixels; Simard's is 34, with sigma 4.
        sigma: Deviation of the Gaussian that smoothes elastic distortions, in pixels.
    """

    shift: float = 0.0
    rotation: float = 0.0
    scaling: float = 0.0
    shear: float = 0.0
    alpha: float = 0.0
    sigma: float = 4.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            real = isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
            within = real and value >= 0 and (value < 1 or field.name != "scaling")
            if not within or (field.name == "sigma" and not 0 < value <= SMOOTHEST):
                special = {"scaling": "0 or more, below 1", "sigma": f"above 0, up to {SMOOTHEST}"}
                expected = special.get(field.name, "0 or more")
                raise ExperimentError(f"distort.{field.name} is {value!r}: expected a finite number, {expected}")
            object.__setattr__(self, field.name, float(value))

    def __bool__(self) -> bool:
        """Whether anything is distorted."""
        return any((self.shift, self.rotation, self.scaling, self.shear, self.alpha))


def distorted(
    key: Key[Array, ""], images: Float[Array, "B n_0"], shape: tuple[int, ...], distort: Distort
) -> Float[Array, "B n_0"]:
    """Images as rows, each distorted in a way of its own; `shape` is one's, (height, width[, channels]).

    >>> image = jnp.arange(9.0)[None]
    >>> bool(jnp.all(distorted(jax.random.key(0), image, (3, 3), Distort()) == image))
    True
    """
    B, H, W = images.shape[0], shape[0], shape[1]
    y, x = places(key, B, H, W, distort, images.dtype)
    stacked = images.reshape(B, H, W, -1)
    return sampled(stacked, y, x).reshape(images.shape)


def places(
    key: Key[Array, ""], B: int, H: int, W: int, distort: Distort, dtype: jnp.dtype
) -> tuple[Float[Array, "B H W"], Float[Array, "B H W"]]:
    """Where in its image each output pixel looks, as rows and columns from 0."""
    affine, elastic = jax.random.split(key)
    draw = jax.random.uniform(affine, (6, B, 1, 1), dtype, -1, 1)
    angle, shear = draw[0] * math.radians(distort.rotation), draw[1] * distort.shear
    wide, high = 1 / (1 + draw[2] * distort.scaling), 1 / (1 + draw[3] * distort.scaling)
    right, down = draw[4] * distort.shift, draw[5] * distort.shift

    y, x = (
        jnp.arange(H, dtype=dtype)[None, :, None] - (H - 1) / 2,
        jnp.arange(W, dtype=dtype)[None, None, :] - (W - 1) / 2,
    )
    x, y = wide * x, high * y
    x = x + shear * y
    x, y = jnp.cos(angle) * x - jnp.sin(angle) * y + right, jnp.sin(angle) * x + jnp.cos(angle) * y + down
    if distort.alpha:
        even = short_numbers(elastic, (2, B, H, W)).astype(dtype) * (2 / 65535) - 1
        u = distort.alpha * smooth(even, distort.sigma)
        x, y = x + u[0], y + u[1]
    return y + (H - 1) / 2, x + (W - 1) / 2


def smooth(field: Float[Array, "*fields H W"], sigma: float) -> Float[Array, "*fields H W"]:
    """Convolved with a Gaussian; the field is 0 beyond its edges."""
    down, right = (gaussian(n, sigma, field.dtype) for n in field.shape[-2:])
    return jnp.einsum("ij,...jk,kl->...il", down, field, right)


def gaussian(n: int, sigma: float, dtype: jnp.dtype) -> Float[np.ndarray, "n n"]:
    """The convolution of n numbers with a Gaussian, as a matrix: symmetric, e^(-d^2 / 2 sigma^2) over its sum."""
    reach = np.arange(-max(n, math.ceil(6 * sigma)), max(n, math.ceil(6 * sigma)) + 1)
    total = np.exp(-0.5 * (reach / sigma) ** 2).sum()
    apart = np.arange(n)[:, None] - np.arange(n)[None, :]
    matrix: np.ndarray = (np.exp(-0.5 * (apart / sigma) ** 2) / total).astype(dtype)
    return matrix


def sampled(
    images: Float[Array, "B H W C"], y: Float[Array, "B H W"], x: Float[Array, "B H W"]
) -> Float[Array, "B H W C"]:
    """The images at places between their pixels, by linear interpolation; 0 beyond their edges."""
    B, H, W, C = images.shape
    framed = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0))).reshape(B * (H + 2) * (W + 2), C)
    y, x = jnp.clip(y + 1, 0, H + 1), jnp.clip(x + 1, 0, W + 1)  # in the frame; beyond it, all is 0
    top, left = jnp.minimum(jnp.floor(y), H), jnp.minimum(jnp.floor(x), W)
    fy, fx = (y - top)[..., None], (x - left)[..., None]
    first = jnp.arange(B, dtype=jnp.int32)[:, None, None] * ((H + 2) * (W + 2))
    corner = first + top.astype(jnp.int32) * (W + 2) + left.astype(jnp.int32)

    def at(offset: int) -> Float[Array, "B H W C"]:
        return framed.at[corner + offset].get(mode="promise_in_bounds")

    upper = (1 - fx) * at(0) + fx * at(1)
    lower = (1 - fx) * at(W + 2) + fx * at(W + 3)
    return (1 - fy) * upper + fy * lower
