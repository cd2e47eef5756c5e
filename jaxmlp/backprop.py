"""Backpropagation, derived by hand; docs/backpropagation.md derives every line.

Forward, layer by layer, with everything kept:

    a^0 = x          z^l = a^(l-1) W^l + b^l          a^l = f_l(z^l)          C_i = loss(a^L_i, y_i)

Backward, from the outputs' deltas to those of every layer before. Row i of D^l is dC_i/dz^l_i:

    D^L = f_L'(z^L)^T dC/da^L
    D^l = f_l'(z^l)^T (D^(l+1) W^(l+1)^T)

A weight's derivative is in proportion to the activation it carries, a bias's is the delta itself, and the gradient of
the cost is their mean over the examples:

    dC/dW^l = sum_i w_i A^(l-1)_i (x) D^l_i / sum_i w_i          dC/db^l = sum_i w_i D^l_i / sum_i w_i

With dropout, a mask M^l stands between a^l and the next layer's inputs A^l = M^l * a^l, on the way back as on the way
there: D^l = f_l'(z^l)^T (M^l * (D^(l+1) W^(l+1)^T)). The penalty l2/2 |W^l|^2 adds l2 W^l to a weight's derivative.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from jaxmlp.activations import ACTIVATIONS
from jaxmlp.devices import on_cpu
from jaxmlp.losses import output_loss
from jaxmlp.network import (
    Batch,
    Layer,
    Masks,
    Network,
    Params,
    dropped,
    masks,
    penalty,
    propagate,
    shares,
    smoothed,
)


class Trace(NamedTuple):
    """A batch's whole backward pass, per example and not yet averaged: a pytree.

    Everything else is a contraction of it: `mean_gradient(trace)` is one.
    """

    inputs: tuple[Float[Array, "B _"], ...]
    """A^0..A^(L-1): the inputs of layers 1..L, shape (B, n_(l-1)), with what dropout left out as 0."""

    deltas: tuple[Float[Array, "B _"], ...]
    """D^1..D^L: row i is dC_i/dz^l_i, shape (B, n_l)."""

    losses: Float[Array, " B"]
    """C_i."""

    weights: Float[Array, " B"] | None
    """The batch's weights."""


def backpropagate(params: Params, batch: Batch, network: Network, key: Key[Array, ""] | None = None) -> Trace:
    """One forward and one backward pass of the examples' costs C_i; a key turns dropout on.

    >>> network = Network((2, 1), output="identity")
    >>> params = (Layer(jnp.array([[1.0], [2.0]]), jnp.array([3.0])),)
    >>> trace = backpropagate(params, Batch(jnp.array([[1.0, 1.0]]), jnp.array([[4.0]])), network)
    >>> trace.deltas[0].tolist(), trace.losses.tolist()  # a = 6 where 4 is wanted
    ([[4.0]], [4.0])
    """
    M = masks(key, batch.inputs, network)
    z, a = propagate(params, batch.inputs, network, M)
    y = smoothed(batch.targets, a[-1], network)
    output = output_loss(network.output, network.loss)
    D = passed_back(output.delta(z[-1], a[-1], y), z, a, params, network, M)
    return Trace(inputs=dropped(a[:-1], M), deltas=D, losses=output.value(z[-1], a[-1], y), weights=batch.weights)


def passed_back(
    delta: Float[Array, "B n_L"],
    z: tuple[Float[Array, "B _"], ...],
    a: tuple[Float[Array, "B _"], ...],
    params: Params,
    network: Network,
    M: Masks,
) -> tuple[Float[Array, "B _"], ...]:
    """D^1..D^L from D^L, of which every one is a linear function; z and a are what `propagate` gives."""
    hidden = ACTIVATIONS[network.activation]
    D: tuple[Array, ...] = (delta,)
    for l in reversed(range(1, len(params))):  # z^l is z[l - 1], W^(l+1) is params[l].kernel
        (wanted,) = dropped((sent_back(D[0], params[l].kernel),), M[l : l + 1])
        D = (hidden.pullback(wanted, z[l - 1], a[l]), *D)
    return D


def sent_back(
    D: Float[Array | np.ndarray, "B n_out"], W: Float[Array | np.ndarray, "n_in n_out"]
) -> Float[Array, "B n_in"]:
    """D W^T; of a wide layer in a batch that is not, for a CPU, as (W D^T)^T.

    XLA then reads W along its rows and the little D^T from memory of its own: 0.80 to 0.99 of a step's time for
    784-2048-2048-10 in batches of 10 to 128 (docs/speed.md).
    """
    if min(W.shape) >= WIDE and not is_long(W.shape) and known(D.shape) and D.shape[0] <= SHORT and on_cpu():
        return in_memory(jnp.asarray(W) @ in_memory(jnp.transpose(D))).T
    return jnp.asarray(D) @ transposed(W)


def summed(inputs: tuple[Float[Array, "B _"], ...], deltas: tuple[Float[Array, "B _"], ...]) -> Params:
    """The sum of the examples' gradients: per layer `A^T D` and `sum_i D_i`."""
    return tuple(Layer(product(A, D), jnp.sum(D, axis=0)) for A, D in zip(inputs, deltas, strict=True))


def product(A: Float[Array | np.ndarray, "B n_in"], D: Float[Array, "B n_out"]) -> Float[Array, "n_in n_out"]:
    """A^T D; of a long kernel as (D^T A)^T, for an epoch that holds such kernels transposed.

    Of more inputs than one core of a CPU is left with, the sum of the products of the batch's two halves. Where a CPU's
    nearest cache would hold few numbers of a column of A, with the rows of A made longer.
    """
    (B, n_in), n_out = A.shape, D.shape[1]
    one_core = known(A.shape) and known(D.shape) and on_one_core(B, n_in, n_out)
    most = FEW if one_core else SMALL
    if not is_long((n_in, n_out)):
        if known(A.shape) and B >= SHORT and n_in % ALIASED == 0 and on_cpu():
            return (lengthened(A).T @ D)[:n_in]
        return transposed(A, (SHORT - 1) * n_in if n_out >= WIDE else most) @ D
    if one_core and A.size > MANY and D.dtype == jnp.float32:  # in bfloat16 a sum of two would be rounded twice
        halves = (A[: B // 2], D[: B // 2]), (A[B // 2 :], D[B // 2 :])
        first, second = (transposed(D, most) @ A for A, D in halves)
        return (first + second).T
    return (transposed(D, most) @ A).T


def known(shape: tuple[Any, ...]) -> bool:
    """Whether a shape is of numbers, unlike one with symbols of jax.export."""
    return all(isinstance(n, int) for n in shape)


def on_one_core(B: int, n_in: int, n_out: int) -> bool:
    """Whether a layer has so little to compute that XLA leaves `x W` to one core of a CPU: YNNPACK's rule, as measured.

    To wake another takes as long as some of the layer's products, so that these, too, are to stay on one.
    """
    padded_B, padded_n_out = (max(16, 1 << (n - 1).bit_length()) for n in (B, n_out))
    return padded_B * n_in * padded_n_out < 2**21 and on_cpu()


MANY = 90_000
"""Of more inputs than so many numbers YNNPACK shares D^T A among cores, however small the product."""


WIDE, SHORT = 2048, 128
"""Units of a layer from which on, and examples of a batch up to which, (W D^T)^T takes less time than D W^T.

In batches of fewer than SHORT, A^T in memory saves such a layer more than it takes; from SHORT on, `lengthened` may."""


ALIASED = 512
"""Where rows have a multiple of so many numbers of float32, those of a column share few places in the nearest cache,
which finds them by the last 12 bits of their addresses; `A^T D` reads columns of A."""


def lengthened(A: Float[Array | np.ndarray, "B n"]) -> Float[Array, "B n+16"]:
    """A with 16 columns of zeros more, in memory: the next row then begins at another place of the cache."""
    return in_memory(jnp.pad(A, ((0, 0), (0, 16))))


LONG = 4
"""How many times as long as wide, or as wide as long, a matrix is that counts as long."""


def is_long(shape: tuple[int, ...]) -> bool:
    """Whether a matrix has a shape as 784 x 16. XLA on a CPU computes its gradient as D^T A in 0.6 of A^T D's time."""
    return len(shape) == 2 and max(shape) >= LONG * min(shape)


SMALL = 1024
"""Numbers of a matrix that a CPU takes no time to speak of to transpose."""


FEW = 8 * SMALL
"""Numbers of a matrix that is transposed sooner than the other core wakes that a product across its rows asks for."""


def transposed(matrix: Float[Array | np.ndarray, "m n"], most: int = SMALL) -> Float[Array, "n m"]:
    """The matrix's transpose, for a CPU that of one with so many numbers at most as an array of its own.

    XLA would have the product read the matrix across its rows. Its transpose and a plain product take a CPU less: 0.85
    of a step's time for the lesson's network in batches of 10, 0.9 for 784-2048-2048-10 (docs/speed.md). `jax.grad` has
    no way to ask for that.
    """
    if not known(matrix.shape) or matrix.size > most or not on_cpu():
        return jnp.transpose(matrix)
    return in_memory(jnp.transpose(matrix))


def in_memory(matrix: Array) -> Array:
    """The matrix as an array of its own, which XLA doesn't melt into what is made of it."""
    own: Array = jax.lax.optimization_barrier(matrix)  # type: ignore[no-untyped-call]
    return own


def mean_gradient(trace: Trace) -> Params:
    """The gradient of the (weighted) mean cost: per layer `A^T D / B` and `sum_i D_i / B`."""
    share = shares(trace.losses, trace.weights)
    return summed(trace.inputs, tuple(share[:, None] * D for D in trace.deltas))


def decayed(gradient: Params, params: Params, network: Network) -> Params:
    """The gradient of the mean of C_i made that of the cost: l2 W^l is added for the penalty on the weights."""
    if network.l2 == 0:
        return gradient
    pairs = zip(gradient, params, strict=True)
    return tuple(Layer(G.kernel + network.l2 * layer.kernel, G.bias) for G, layer in pairs)


def value_and_backprop(
    params: Params, batch: Batch, network: Network, key: Key[Array, ""] | None = None
) -> tuple[Float[Array, ""], Params]:
    """The cost and its gradient: what `jax.value_and_grad(jaxmlp.loss)(params, batch, network, key)` gives.

    But for rounding, it is `mean_gradient` of the trace, and what the penalty adds, in fewer operations: all deltas are
    linear in D^L, so that an example's share in the mean need be given to its row of D^L only, and not once more in
    every layer.
    """
    M = masks(key, batch.inputs, network)
    z, a = propagate(params, batch.inputs, network, M)
    y = smoothed(batch.targets, a[-1], network)
    output = output_loss(network.output, network.loss)
    C = output.value(z[-1], a[-1], y)
    share = shares(C, batch.weights)
    D = passed_back(share[:, None] * output.delta(z[-1], a[-1], y), z, a, params, network, M)
    cost = jnp.sum(share * C)
    gradient = decayed(summed(dropped(a[:-1], M), D), params, network)
    return cost + penalty(params, network) if network.l2 else cost, gradient


def backprop(params: Params, batch: Batch, network: Network, key: Key[Array, ""] | None = None) -> Params:
    """The gradient of the cost, shaped as `params`: what `jax.grad(jaxmlp.loss)(params, batch, network, key)` gives.

    >>> network = Network((2, 1), output="identity")
    >>> params = (Layer(jnp.array([[1.0], [2.0]]), jnp.array([3.0])),)
    >>> (layer,) = backprop(params, Batch(jnp.array([[1.0, 5.0]]), jnp.array([[13.0]])), network)
    >>> layer.kernel.tolist(), layer.bias.tolist()  # a = 14 where 13 is wanted
    ([[2.0], [10.0]], [2.0])
    """
    _, gradient = value_and_backprop(params, batch, network, key)
    return gradient
