"""What can be recorded of a step while training: one table, INSTRUMENTS, from names to functions of a `Step`.

With g_i the gradient of example i, w_i its weight and

    W = sum_i w_i          gbar = sum_i w_i g_i / W          tr Sigma = sum_i w_i |g_i - gbar|^2 / (W - 1)

all are contractions of the trace that the step has anyway; a weight of 0 leaves an example out of each. What a variance
is needed for is NaN where W <= 1, as in a last batch of a single example. The tests of a batch size are recorded as the
smallest threshold that they pass with. Most are also Cockpit's (Schneider 2021, arXiv 2102.06604); docs/diagnosis.md
says where they differ, and what each costs.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxmlp import perexample
from jaxmlp.activations import ACTIVATIONS
from jaxmlp.backprop import Trace
from jaxmlp.network import Batch, Network, Params, counts, masks, propagate, shares
from jaxmlp.training.config import QuantityName
from jaxmlp.training.epoch import flip


class Step(NamedTuple):
    """What a step knows. All that has the parameters' shape is flipped (see `make_step`), which no norm minds.

    Attributes:
        gradient: gbar, `flip(mean_gradient(trace))`: a norm read along the memory costs a third of one read across it.
        start: The parameters that the run started from.
        slopes: f_l'(z^l) of the hidden layers, shape (B, n_l).
    """

    trace: Trace
    gradient: Params
    before: Params
    after: Params
    start: Params
    slopes: tuple[Float[Array, "B _"], ...]


def slopes(
    params: Params, batch: Batch, network: Network, key: Key[Array, ""] | None = None
) -> tuple[Float[Array, "B _"], ...]:
    """f_l'(z^l) of the hidden layers, element by element; of softmax the Jacobian's diagonal, a (1 - a).

    The forward pass that this writes once more is the trace's; XLA computes it once.
    """
    z, a = propagate(params, batch.inputs, network, masks(key, batch.inputs, network))
    pullback = ACTIVATIONS[network.activation].pullback
    pairs = zip(z[:-1], a[1:-1], strict=True)
    return tuple(a * (1 - a) if network.activation == "softmax" else pullback(jnp.ones_like(z), z, a) for z, a in pairs)


def weight(step: Step) -> Float[Array, ""]:
    """W."""
    return jnp.sum(counts(step.trace.losses, step.trace.weights))


def layer_norms(params: Params) -> Float[Array, " L"]:
    """The norm of each layer's part, kernel and bias together."""
    return jnp.stack([jnp.sqrt(perexample.squared_norm((layer,))) for layer in params])


def loss(step: Step) -> Float[Array, ""]:
    """The batch's cost, before the update: sum_i w_i C_i / W."""
    return jnp.sum(shares(step.trace.losses, step.trace.weights) * step.trace.losses)


def total_variance(step: Step) -> Float[Array, ""]:
    """tr Sigma."""
    return perexample.total_variance(step.trace, step.gradient)


def noise_scale(step: Step) -> Float[Array, "2"]:
    """tr Sigma and |G|^2, of which the simple noise scale is the ratio: see `perexample.noise_scale`."""
    return perexample.noise_scale(step.trace, step.gradient)


def norm_test(step: Step) -> Float[Array, ""]:
    """sqrt(tr Sigma / W) / |gbar|: the smallest theta with which the norm test passes (Byrd 2012, equation 3.9)."""
    return jnp.sqrt(total_variance(step) / weight(step) / perexample.squared_norm(step.gradient))


def inner_product_test(step: Step) -> Float[Array, ""]:
    """The smallest theta with which the inner product test passes (Bollapragada 2017, equation 2.6).

    arXiv 1710.11258: sqrt(sum_i w_i (g_i . gbar - |gbar|^2)^2 / (W - 1) / W) / |gbar|^2: how widely the examples'
    gradients vary along their mean.
    """
    norm, share = perexample.squared_norm(step.gradient), shares(step.trace.losses, step.trace.weights)
    apart = perexample.inner_products(step.trace, flip(step.gradient)) - norm
    return jnp.sqrt(perexample.bessel(step.trace) * jnp.sum(share * apart * apart) / weight(step)) / norm


def orthogonality_test(step: Step) -> Float[Array, ""]:
    """The smallest nu with which the orthogonality test passes (Bollapragada 2017, equation 3.3).

    sqrt(sum_i w_i |g_i - (g_i . gbar) gbar / |gbar|^2|^2 / (W - 1) / W) / |gbar|: how widely they vary across their
    mean. Its square and that of the inner product test add up to that of the norm test. The difference of squares that
    it is costs digits where nearly all lies along the mean: its own square's relative error is some roundings times
    |g|^2 over what lies across.
    """
    norm, share = perexample.squared_norm(step.gradient), shares(step.trace.losses, step.trace.weights)
    p = perexample.inner_products(step.trace, flip(step.gradient))
    across = jnp.maximum(perexample.squared_norms(step.trace) - p * p / norm, 0)
    return jnp.sqrt(perexample.bessel(step.trace) * jnp.sum(share * across) / weight(step) / norm)


def gsnr(step: Step) -> Float[Array, ""]:
    """The mean over the weights of gbar^2 / variance (Liu 2020, arXiv 2001.07384, equation 1), the variance unbiased.

    Weights whose gradient doesn't vary in the batch are left out, such as those of a pixel that is black in every
    image: the variance, a difference of two sums of B squares, is then rounding, up to some B roundings of gbar^2. NaN
    where none is left. The others' ratios lose as many digits as `perexample.variance` does.
    """
    pairs = zip(
        jax.tree.leaves(step.gradient),
        jax.tree.leaves(flip(perexample.variance(step.trace, flip(step.gradient)))),
        strict=True,
    )
    rounding = step.trace.losses.size * float(jnp.finfo(step.trace.losses.dtype).eps)  # type: ignore[no-untyped-call]
    squares = [(g * g, v, v > rounding * g * g) for g, v in pairs]
    total = jnp.sum(jnp.stack([jnp.sum(jnp.where(there, g2 / jnp.where(there, v, 1), 0)) for g2, v, there in squares]))
    varying = jnp.sum(jnp.stack([jnp.sum(there, dtype=total.dtype) for _, _, there in squares]))
    return jnp.where(weight(step) > 1, total / varying, jnp.nan)


def early_stopping(step: Step) -> Float[Array, ""]:
    """1 - W gsnr: above 0, the gradient is what noise alone would give, and training may stop.

    The evidence-based criterion (Mahsereci 2017, arXiv 1703.09580, equation 7), over the weights that `gsnr` counts. It
    is one of plain gradient descent.
    """
    return 1 - weight(step) * gsnr(step)


def gradient_norm(step: Step) -> Float[Array, " L"]:
    """|gbar| of each layer."""
    return layer_norms(step.gradient)


EDGES = tuple(10.0 ** (n / 2) for n in range(-16, 3))
"""Of the histograms: 1e-8 to 10, two bins a decade."""


def gradient_histogram(step: Step) -> Float[Array, "L 20"]:
    """How many elements of |gbar|, kernel and bias, lie below 1e-8, in each half decade, and from 10 up: by layer.

    They are elements of the mean gradient. Cockpit's histograms count every example's, B times as many, which a trace
    doesn't have one by one.
    """

    def counted(leaf: Array) -> Array:
        size = jnp.abs(leaf).ravel()
        reached = sum((~(size < edge)).astype(jnp.int32) for edge in EDGES)  # how many edges: NaN all of them
        return jnp.bincount(reached, length=len(EDGES) + 1).astype(leaf.dtype)

    return jnp.stack([counted(layer.kernel) + counted(layer.bias) for layer in step.gradient])


def moved(step: Step, since: Params) -> Float[Array, " L"]:
    return layer_norms(jax.tree.map(jnp.subtract, step.after, since))


def update_size(step: Step) -> Float[Array, " L"]:
    """How far the step moved each layer: |theta_(t+1) - theta_t|."""
    return moved(step, step.before)


def update_ratio(step: Step) -> Float[Array, " L"]:
    """The same over the layer's own norm: |theta_(t+1) - theta_t| / |theta_t|."""
    return moved(step, step.before) / layer_norms(step.before)


def distance(step: Step) -> Float[Array, " L"]:
    """How far each layer is from where the run started: |theta_(t+1) - theta_0|."""
    return moved(step, step.start)


FLAT = 0.01
"""A unit is flat on an example where the slope of its activation is less than this."""


def saturation(step: Step) -> Float[Array, " hidden"]:
    """The share of each hidden layer's units that are flat, in the mean over the examples: |f'(z)| < 1/100.

    A sigmoid is where a < 0.0101 or a > 0.9899; relu where z <= 0.
    """
    share = shares(step.trace.losses, step.trace.weights)
    flat = [jnp.mean(jnp.abs(slope) < FLAT, axis=1, dtype=share.dtype) for slope in step.slopes]
    return jnp.stack([jnp.sum(share * one) for one in flat]) if flat else jnp.zeros((0,), share.dtype)


def dead_units(step: Step) -> Float[Array, " hidden"]:
    """The share of each hidden layer's units that are flat on every example of the batch: they pass nothing back."""
    share = shares(step.trace.losses, step.trace.weights)
    there = (counts(step.trace.losses, step.trace.weights) > 0)[:, None]
    dead = [jnp.all((jnp.abs(slope) < FLAT) | ~there, axis=0) for slope in step.slopes]
    return jnp.stack([jnp.mean(one, dtype=share.dtype) for one in dead]) if dead else jnp.zeros((0,), share.dtype)


def of_examples(step: Step, values: Float[Array, " B"]) -> Float[Array, " B"]:
    """The values, NaN for the fill of a ragged batch."""
    return jnp.where(counts(values, step.trace.weights) > 0, values, jnp.nan)


def example_losses(step: Step) -> Float[Array, " B"]:
    """C_i of every example of the batch, in its order. NaN, here and below, for the fill of a ragged batch."""
    return of_examples(step, step.trace.losses)


def example_norms(step: Step) -> Float[Array, " B"]:
    """|g_i| of every example of the batch."""
    return of_examples(step, jnp.sqrt(perexample.squared_norms(step.trace)))


def example_cosines(step: Step) -> Float[Array, " B"]:
    """The cosine of g_i with gbar, of every example of the batch."""
    return of_examples(step, perexample.cosines(step.trace, flip(step.gradient)))


INSTRUMENTS: dict[QuantityName, Callable[[Step], Array]] = {
    "loss": loss,
    "noise_scale": noise_scale,
    "norm_test": norm_test,
    "inner_product_test": inner_product_test,
    "orthogonality_test": orthogonality_test,
    "gsnr": gsnr,
    "early_stopping": early_stopping,
    "gradient_norm": gradient_norm,
    "gradient_histogram": gradient_histogram,
    "update_size": update_size,
    "update_ratio": update_ratio,
    "distance": distance,
    "saturation": saturation,
    "dead_units": dead_units,
    "example_losses": example_losses,
    "example_norms": example_norms,
    "example_cosines": example_cosines,
}

OF_EXAMPLES = ("example_losses", "example_norms", "example_cosines")
"""Those with a value for every example of the batch."""


def measure(step: Step, names: tuple[QuantityName, ...]) -> dict[str, Array]:
    """The named quantities of a step."""
    return {name: INSTRUMENTS[name](step) for name in names}
