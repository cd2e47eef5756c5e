"""Backpropagation, derived by hand; docs/backpropagation.md derives every line.

Forward, layer by layer, with everything kept:

    a^0 = x          z^l = a^(l-1) W^l + b^l          a^l = f_l(z^l)          C_i = loss(a^L_i, y_i)

Backward, from the outputs' deltas to those of every layer before. Row i of D^l is dC_i/dz^l_i:

    D^L = f_L'(z^L)^T dC/da^L
    D^l = f_l'(z^l)^T (D^(l+1) W^(l+1)^T)

A weight's derivative is in proportion to the activation it carries, a bias's is the delta itself, and the gradient of
the cost is their mean over the examples:

    dC/dW^l = sum_i w_i A^(l-1)_i (x) D^l_i / sum_i w_i          dC/db^l = sum_i w_i D^l_i / sum_i w_i
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmlp.activations import ACTIVATIONS
from jaxmlp.losses import output_loss
from jaxmlp.network import Batch, Layer, Network, Params, propagate, shares, wanted


class Trace(NamedTuple):
    """A batch's whole backward pass, per example and not yet averaged: a pytree.

    Everything else is a contraction of it: `mean_gradient(trace)` is one.
    """

    inputs: tuple[Float[Array, "B _"], ...]
    """A^0..A^(L-1): the inputs of layers 1..L, shape (B, n_(l-1))."""

    deltas: tuple[Float[Array, "B _"], ...]
    """D^1..D^L: row i is dC_i/dz^l_i, shape (B, n_l)."""

    losses: Float[Array, " B"]
    """C_i."""

    weights: Float[Array, " B"] | None
    """The batch's weights."""


def backpropagate(params: Params, batch: Batch, network: Network) -> Trace:
    """One forward and one backward pass.

    >>> network = Network((2, 1), output="identity")
    >>> params = (Layer(jnp.array([[1.0], [2.0]]), jnp.array([3.0])),)
    >>> trace = backpropagate(params, Batch(jnp.array([[1.0, 1.0]]), jnp.array([[4.0]])), network)
    >>> trace.deltas[0].tolist(), trace.losses.tolist()  # a = 6 where 4 is wanted
    ([[4.0]], [4.0])
    """
    z, a = propagate(params, batch.inputs, network)
    y = wanted(batch.targets, a[-1])
    output = output_loss(network.output, network.loss)
    D = passed_back(output.delta(z[-1], a[-1], y), z, a, params, network)
    return Trace(inputs=a[:-1], deltas=D, losses=output.value(z[-1], a[-1], y), weights=batch.weights)


def passed_back(
    delta: Float[Array, "B n_L"],
    z: tuple[Float[Array, "B _"], ...],
    a: tuple[Float[Array, "B _"], ...],
    params: Params,
    network: Network,
) -> tuple[Float[Array, "B _"], ...]:
    """D^1..D^L from D^L, of which every one is a linear function; z and a are what `propagate` gives."""
    hidden = ACTIVATIONS[network.activation]
    D: tuple[Array, ...] = (delta,)
    for l in reversed(range(1, len(params))):  # z^l is z[l - 1], W^(l+1) is params[l].kernel
        D = (hidden.pullback(D[0] @ params[l].kernel.T, z[l - 1], a[l]), *D)
    return D


def summed(inputs: tuple[Float[Array, "B _"], ...], deltas: tuple[Float[Array, "B _"], ...]) -> Params:
    """The sum of the examples' gradients: per layer `A^T D` and `sum_i D_i`."""
    return tuple(Layer(A.T @ D, jnp.sum(D, axis=0)) for A, D in zip(inputs, deltas, strict=True))


def mean_gradient(trace: Trace) -> Params:
    """The gradient of the (weighted) mean cost: per layer `A^T D / B` and `sum_i D_i / B`."""
    share = shares(trace.losses, trace.weights)
    return summed(trace.inputs, tuple(share[:, None] * D for D in trace.deltas))


def value_and_backprop(params: Params, batch: Batch, network: Network) -> tuple[Float[Array, ""], Params]:
    """The cost and its gradient: what `jax.value_and_grad(jaxmlp.loss)(params, batch, network)` gives.

    It is `mean_gradient` of the trace, but for rounding, in fewer operations: all deltas are linear in D^L, so that an
    example's share in the mean need be given to its row of D^L only, and not once more in every layer.
    """
    z, a = propagate(params, batch.inputs, network)
    y = wanted(batch.targets, a[-1])
    output = output_loss(network.output, network.loss)
    C = output.value(z[-1], a[-1], y)
    share = shares(C, batch.weights)
    D = passed_back(share[:, None] * output.delta(z[-1], a[-1], y), z, a, params, network)
    return jnp.sum(share * C), summed(a[:-1], D)


def backprop(params: Params, batch: Batch, network: Network) -> Params:
    """The gradient of the cost, in the shape of `params`: what `jax.grad(jaxmlp.loss)(params, batch, network)` gives.

    >>> network = Network((2, 1), output="identity")
    >>> params = (Layer(jnp.array([[1.0], [2.0]]), jnp.array([3.0])),)
    >>> (layer,) = backprop(params, Batch(jnp.array([[1.0, 5.0]]), jnp.array([[13.0]])), network)
    >>> layer.kernel.tolist(), layer.bias.tolist()  # a = 14 where 13 is wanted
    ([[2.0], [10.0]], [2.0])
    """
    _, gradient = value_and_backprop(params, batch, network)
    return gradient
