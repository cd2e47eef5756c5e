"""Every example's own gradient, and what a batch's gradients say together: contractions of a `Trace`.

With A = A^(l-1) and D = D^l, example i's gradient g_i has the parts

    dC_i/dW^l = outer(A_i, D_i)          dC_i/db^l = D_i

so that norms, inner products and sums over examples are products of A and D, and none needs the B gradients themselves
(docs/perexample.md). What is said of an example (`gradients`, `squared_norms`, `gram`, `inner_products`) is its own,
whatever its weight w_i. What is said of the batch counts each example w_i times; a weight of 0 leaves it out:

    W = sum_i w_i          gbar = sum_i w_i g_i / W, which is `mean_gradient`

All are pure functions of arrays, for `jit`, `vmap` and `scan`. A masked example must be finite all the same, since 0
times infinity is not 0. Squares are formed, which in float32 hold norms from about 1e-15 to 1e15 only; clipping alone
holds for all.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxmlp.backprop import Trace, mean_gradient, summed
from jaxmlp.errors import NetworkError
from jaxmlp.network import Layer, Params, counts, shares


def gradients(trace: Trace) -> Params:
    """Each example's gradient g_i, materialised: per layer `outer(A_i, D_i)` and `D_i`, with a leading axis B.

    That is B times the memory of the parameters. For a part of the examples, take rows of the trace, as in
    `gradients(jax.tree.map(lambda rows: rows[:32], trace))`. For all of them, `jax.lax.map` makes as many at a time as
    there is room for; what it maps sees the trace of a single example, without the axis B:

    >>> trace = Trace((jnp.array([[1.0, 1.0], [0.0, 1.0]]),), (jnp.array([[4.0], [2.0]]),), jnp.array([4.0, 1.0]), None)
    >>> [leaf.shape for leaf in jax.tree.leaves(gradients(trace))]
    [(2, 2, 1), (2, 1)]
    >>> def largest(one):
    ...     return jnp.max(jnp.abs(gradients(one)[0].kernel))
    >>> jax.lax.map(largest, trace, batch_size=64).tolist()
    [4.0, 2.0]
    """
    pairs = zip(trace.inputs, trace.deltas, strict=True)
    return tuple(Layer(A[..., :, None] * D[..., None, :], D) for A, D in pairs)


def layer_squared_norms(trace: Trace) -> Float[Array, "L B"]:
    """`(|A_i|^2 + 1) |D_i|^2` of every layer: |g_i|^2 is their sum, and the 1 is the bias's share."""
    pairs = zip(trace.inputs, trace.deltas, strict=True)
    return jnp.stack([(jnp.sum(A * A, axis=1) + 1) * jnp.sum(D * D, axis=1) for A, D in pairs])


def squared_norms(trace: Trace) -> Float[Array, " B"]:
    """|g_i|^2 = sum over l of `(|A_i|^2 + 1) |D_i|^2` (Goodfellow 2015, arXiv 1510.01799).

    >>> trace = Trace((jnp.array([[3.0, 4.0]]),), (jnp.array([[2.0]]),), jnp.array([1.0]), None)
    >>> squared_norms(trace).tolist()  # 6^2 + 8^2 + 2^2
    [104.0]
    """
    return jnp.sum(layer_squared_norms(trace), axis=0)


def gram(trace: Trace) -> Float[Array, "B B"]:
    """The inner products g_i . g_j: sum over l of `(A A^T + 1) * (D D^T)`.

    >>> trace = Trace((jnp.array([[1.0], [2.0]]),), (jnp.array([[1.0], [-1.0]]),), jnp.ones(2), None)
    >>> gram(trace).tolist()  # of the gradients (1, 1) and (-2, -1)
    [[2.0, -3.0], [-3.0, 5.0]]
    """
    B = trace.losses.size
    products = jnp.zeros((B, B), trace.losses.dtype)
    for A, D in zip(trace.inputs, trace.deltas, strict=True):
        products += (A @ A.T + 1) * (D @ D.T)
    return products


def inner_products(trace: Trace, direction: Params) -> Float[Array, " B"]:
    """g_i . v for a v in the shape of the parameters: sum over l of `A_i V D_i + v_b D_i`, shape (B,).

    A loss's rate of change along v: how much example i minds the parameters' going that way.

    Raises:
        NetworkError: for a v of another shape.
    """
    pairs = zip(trace.inputs, trace.deltas, strict=True)
    shapes = [((A.shape[1], D.shape[1]), D.shape[1:]) for A, D in pairs]
    found = [(v.kernel.shape, v.bias.shape) for v in direction]
    if found != shapes:
        raise NetworkError(f"the direction's kernels and biases have shapes {found}: expected {shapes}")
    products = jnp.zeros_like(trace.losses)
    for A, D, v in zip(trace.inputs, trace.deltas, direction, strict=True):
        products += jnp.sum((A @ v.kernel + v.bias[None, :]) * D, axis=1)
    return products


def cosines(trace: Trace, gbar: Params | None = None) -> Float[Array, " B"]:
    """The cosine of g_i with the mean gradient: `g_i . gbar / (|g_i| |gbar|)`, shape (B,).

    It is 0 where either is 0, as nothing is asked there. Weights that sum to 0 give NaN. Give the mean gradient as
    `gbar` where it is at hand.

    >>> trace = Trace((jnp.zeros((3, 1)),), (jnp.array([[4.0], [-1.0], [0.0]]),), jnp.ones(3), None)
    >>> cosines(trace).tolist()
    [1.0, -1.0, 0.0]
    """
    gbar = mean_gradient(trace) if gbar is None else gbar
    norms = jnp.sqrt(squared_norms(trace)) * jnp.sqrt(squared_norm(gbar))
    return jnp.clip(inner_products(trace, gbar) / jnp.where(norms == 0, 1, norms), -1, 1)


def squared_norm(gradient: Params) -> Float[Array, ""]:
    """|v|^2 of a v in the shape of the parameters."""
    return jnp.sum(jnp.stack([jnp.sum(leaf * leaf) for leaf in jax.tree.leaves(gradient)]))


def combined(trace: Trace, coefficients: Float[Array, " B"] | Float[Array, "L B"]) -> Params:
    """sum_i c_i g_i, per layer `A^T (c * D)` and `sum_i c_i D_i`, with coefficients (B,), or (L, B): a row a layer.

    The trace's weights take no part: give them as (a factor of) the coefficients.

    Raises:
        NetworkError: for coefficients of another shape.
    """
    L, B = len(trace.deltas), trace.losses.size
    if coefficients.shape not in ((B,), (L, B)):
        raise NetworkError(f"coefficients have shape {coefficients.shape}: expected {(B,)}, or {(L, B)}, a row a layer")
    c = jnp.broadcast_to(coefficients, (L, B))
    return summed(trace.inputs, tuple(c_l[:, None] * D for c_l, D in zip(c, trace.deltas, strict=True)))


def sum_of_squares(trace: Trace) -> Params:
    """sum_i w_i g_i * g_i, element by element: per layer `(A*A)^T (w * D*D)` and `sum_i w_i D_i*D_i`."""
    w = counts(trace.losses, trace.weights)
    return summed(tuple(A * A for A in trace.inputs), tuple(w[:, None] * (D * D) for D in trace.deltas))


def mean_of_squares(trace: Trace) -> Params:
    """sum_i w_i g_i * g_i / W: the second moment of the gradients, the diagonal of the empirical Fisher matrix."""
    share = shares(trace.losses, trace.weights)
    return summed(tuple(A * A for A in trace.inputs), tuple(share[:, None] * (D * D) for D in trace.deltas))


def variance(trace: Trace, gbar: Params | None = None) -> Params:
    """The unbiased variance of every weight's gradient over the examples, each counted w_i times.

        sum_i w_i (g_i - gbar)^2 / (W - 1) = W / (W - 1) (mean of squares - gbar^2)

    The right side is what is computed. Its relative error is of the order of 1 + gbar^2 / variance roundings, so that
    digits are lost where all examples ask for nearly the same, and only there. It is never negative; NaN where W <= 1:
    weights are counts here, not shares. Give the mean gradient as `gbar` where it is at hand.

    >>> trace = Trace((jnp.zeros((2, 1)),), (jnp.array([[1.0], [3.0]]),), jnp.ones(2), None)
    >>> variance(trace)[0].bias.tolist()
    [2.0]
    """
    correction = bessel(trace)

    def unbiased(square: Array, mean: Array) -> Array:
        return correction * jnp.maximum(square - mean * mean, 0)

    gbar = mean_gradient(trace) if gbar is None else gbar
    found: Params = jax.tree.map(unbiased, mean_of_squares(trace), gbar)
    return found


def total_variance(trace: Trace, gbar: Params | None = None) -> Float[Array, ""]:
    """The trace of the gradients' covariance matrix, the sum of `variance`: what a batch's noise comes from.

        (sum_i w_i |g_i|^2 - W |gbar|^2) / (W - 1)

    Of the examples' squared norms, not of squares weight by weight, it costs less than `variance`. The variance of gbar
    as an estimate is this over W. Rounding as in `variance`, with |gbar|^2; never negative; NaN where W <= 1. Give the
    mean gradient as `gbar` where it is at hand.
    """
    share = shares(trace.losses, trace.weights)
    spread = jnp.sum(share * squared_norms(trace)) - squared_norm(mean_gradient(trace) if gbar is None else gbar)
    return bessel(trace) * jnp.maximum(spread, 0)


def noise_scale(trace: Trace, gbar: Params | None = None) -> Float[Array, "2"]:
    """tr Sigma and |G|^2, of which the simple noise scale B_simple = tr Sigma / |G|^2 is the ratio.

    McCandlish 2018 (arXiv 1812.06162), equation 2.9, by the unbiased estimates of appendix A.1 with batches of 1 and
    W: |gbar|^2 overestimates |G|^2 by tr Sigma / W, which is taken off; a single batch's |G|^2 may so be negative. The
    ratio of noisy numbers is biased: average both over batches, then divide. NaN where W <= 1. Give the mean gradient
    as `gbar` where it is at hand.

    >>> trace = Trace((jnp.zeros((2, 1)),), (jnp.array([[1.0], [3.0]]),), jnp.ones(2), None)
    >>> noise_scale(trace).tolist()  # of the gradients 1 and 3
    [2.0, 3.0]
    """
    gbar = mean_gradient(trace) if gbar is None else gbar
    Sigma, W = total_variance(trace, gbar), jnp.sum(counts(trace.losses, trace.weights))
    return jnp.stack([Sigma, squared_norm(gbar) - Sigma / W])


def bessel(trace: Trace) -> Float[Array, ""]:
    """W / (W - 1), which makes a variance about the examples' own mean unbiased; NaN where W <= 1."""
    W = jnp.sum(counts(trace.losses, trace.weights))
    return jnp.where(W > 1, W / jnp.where(W > 1, W - 1, 1), jnp.nan)


def clips(trace: Trace, max_norm: float | Float[Array, "..."]) -> Float[Array, "L B"]:
    """The factors of every layer that bring gradients down to the norm C > 0 and leave smaller ones as they are.

    Of a number, `min(1, C / |g_i|)` in every layer; of L numbers, `min(1, C_l / |g_i^l|)` of that layer's part.
    """
    given = jnp.asarray(max_norm)
    if not isinstance(given, jax.core.Tracer) and not np.all(jax.device_get(given) > 0):
        raise NetworkError(f"max_norm is {max_norm}: expected a number above 0, or such a number for each layer")
    C = given.astype(trace.losses.dtype)
    if C.shape not in ((), (len(trace.deltas),)):
        raise NetworkError(f"max_norm has shape {C.shape}: expected a number, or one a layer, ({len(trace.deltas)},)")
    pairs = [(row_norms(A), row_norms(D)) for A, D in zip(trace.inputs, trace.deltas, strict=True)]
    # 0 where D is, also of inputs whose norm is beyond all numbers
    norms = jnp.stack([jnp.where(d == 0, 0, d * jnp.hypot(a, 1)) for a, d in pairs])
    if C.ndim == 0:
        norms, C = jnp.broadcast_to(row_norms(norms.T), norms.shape), C[None]
    return jnp.minimum(1, C[:, None] / norms)


def row_norms(X: Float[Array, "B n"]) -> Float[Array, " B"]:
    """The norm of every row, scaled by its largest element, so that no square overflows or underflows.

    A clip must hold for any example: one whose squares are lost would go in whole.
    """
    s = jnp.max(jnp.abs(X), axis=1)
    scaled = X / jnp.where(s > 0, s, 1)[:, None]
    return jnp.where(jnp.isinf(s), s, s * jnp.sqrt(jnp.sum(scaled * scaled, axis=1)))


def clipped_sum(trace: Trace, max_norm: float | Float[Array, "..."]) -> Params:
    """sum_i w_i min(1, C / |g_i|) g_i: the sum of DP-SGD, before noise (Abadi 2016, arXiv 1607.00133, algorithm 1).

    An example of weight w moves it by no more than `w C`; with masks for weights, then, by C. `max_norm` is C > 0: one
    number for the norm of the whole gradient, or L numbers, shape (L,), for each layer's part, which allows an example
    `sqrt(sum_l C_l^2)` in all. Without any example (W = 0) it is 0.

    Raises:
        NetworkError: where `max_norm` is neither, or not above 0 (which can't be told while JAX traces it).

    >>> trace = Trace((jnp.array([[0.75], [0.0]]),), (jnp.array([[4.0], [1.0]]),), jnp.ones(2), None)
    >>> (layer,) = clipped_sum(trace, 2.5)  # (3, 4) is halved, (0, 1) left as it is
    >>> layer.kernel.tolist(), layer.bias.tolist()
    ([[1.5]], [3.0])
    """
    w = counts(trace.losses, trace.weights)
    return combined(trace, w[None, :] * clips(trace, max_norm))


def clipped_gradient(trace: Trace, max_norm: float | Float[Array, "..."]) -> Params:
    """The mean of the clipped gradients: `clipped_sum / W`. Where no norm exceeds C, it is `mean_gradient`."""
    share = shares(trace.losses, trace.weights)
    return combined(trace, share[None, :] * clips(trace, max_norm))


class Factors(NamedTuple):
    """One layer's Kronecker factors."""

    inputs: Float[Array, "n_in n_in"]
    deltas: Float[Array, "n_out n_out"]


def kronecker_factors(trace: Trace) -> tuple[Factors, ...]:
    """`A^T A / B` and `D^T D / B` of every layer, or with weights `sum_i w_i outer(A_i, A_i) / W`, and of D likewise.

    Their Kronecker product is K-FAC's approximation of the kernels' block of E[g g^T] (Martens and Grosse 2015, arXiv
    1503.05671); of a bias, the input is 1. The deltas are those of the targets in the batch, so this is the empirical
    Fisher matrix: for the true one make the trace of targets drawn from the network's own outputs.
    """
    share = shares(trace.losses, trace.weights)[:, None]
    pairs = zip(trace.inputs, trace.deltas, strict=True)
    return tuple(Factors(A.T @ (share * A), D.T @ (share * D)) for A, D in pairs)
