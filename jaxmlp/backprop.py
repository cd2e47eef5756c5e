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

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxmlp.activations import ACTIVATIONS
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
    refuse_misfits,
    shares,
    smoothed,
)
from jaxmlp.products import PARTS, held, kernel_gradient, sent_back, turns


class Trace(NamedTuple):
    """A batch's whole backward pass, per example and not yet averaged: a pytree.

    Everything else is a contraction of it: `mean_gradient(trace)` is one. It is of the examples' costs C_i, in which
    the penalty on the weights has no part.

    Attributes:
        inputs: A^0..A^(L-1): the inputs of layers 1..L, shape (B, n_(l-1)), with what dropout left out as 0.
        deltas: D^1..D^L: row i is dC_i/dz^l_i, shape (B, n_l).
        losses: C_i, shape (B,).
        weights: The batch's, shape (B,), if it has any.
    """

    inputs: tuple[Float[Array, "B _"], ...]
    deltas: tuple[Float[Array, "B _"], ...]
    losses: Float[Array, " B"]
    weights: Float[Array, " B"] | None


def backpropagate(params: Params, batch: Batch, network: Network, key: Key[Array, ""] | None = None) -> Trace:
    """One forward and one backward pass of the examples' costs C_i; a key turns dropout on.

    >>> network = Network((2, 1), output="identity")
    >>> params = (Layer(jnp.array([[1.0], [2.0]]), jnp.array([3.0])),)
    >>> trace = backpropagate(params, Batch(jnp.array([[1.0, 1.0]]), jnp.array([[4.0]])), network)
    >>> trace.deltas[0].tolist(), trace.losses.tolist()  # a = 6 where 4 is wanted
    ([[4.0]], [4.0])
    """
    refuse_misfits(params, batch, network)
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
    turned: int = 0,
) -> tuple[Float[Array, "B _"], ...]:
    """D^1..D^L from D^L, of which every one is a linear function; z and a are what `propagate` gives.

    Turned they lie in memory the other way (`products.py`), which changes no number but for rounding.
    """
    hidden = ACTIVATIONS[network.activation]
    D: tuple[Array, ...] = (held(delta, turned),)
    for l in reversed(range(1, len(params))):  # z^l is z[l - 1], W^(l+1) is params[l].kernel
        (wanted,) = dropped((sent_back(D[0], params[l].kernel, turned),), M[l : l + 1])
        D = (held(hidden.pullback(wanted, z[l - 1], a[l]), turned), *D)
    return D


def summed(inputs: tuple[Float[Array, "B _"], ...], deltas: tuple[Float[Array, "B _"], ...], turned: int = 0) -> Params:
    """The sum of the examples' gradients: per layer `A^T D` and `sum_i D_i`."""
    pairs = zip(inputs, deltas, strict=True)
    return tuple(Layer(kernel_gradient(A, D, turned), jnp.sum(D, axis=0)) for A, D in pairs)


def mean_gradient(trace: Trace) -> Params:
    """The gradient of the (weighted) mean of C_i, without the penalty: per layer `A^T D / B` and `sum_i D_i / B`."""
    share = shares(trace.losses, trace.weights)
    return summed(trace.inputs, tuple(share[:, None] * D for D in trace.deltas))


def decayed(gradient: Params, params: Params, network: Network) -> Params:
    """The gradient of the mean of C_i made that of the cost: l2 W^l is added for the penalty on the weights."""
    if network.l2 == 0:
        return gradient
    pairs = zip(gradient, params, strict=True)
    return tuple(Layer(G.kernel + network.l2 * layer.kernel, G.bias) for G, layer in pairs)


def typed(gradient: Params, params: Params) -> Params:
    """The gradient in the parameters' types, which may be narrower than the inputs', and in their tree."""
    leaves, tree = jax.tree.flatten(params)
    pairs = zip(jax.tree.leaves(gradient), leaves, strict=True)
    same: Params = jax.tree.unflatten(tree, [G.astype(theta.dtype) for G, theta in pairs])
    return same


def value_and_backprop(
    params: Params, batch: Batch, network: Network, key: Key[Array, ""] | None = None, most: int = PARTS
) -> tuple[Float[Array, ""], Params]:
    """The cost and its gradient: what `jax.value_and_grad(jaxmlp.loss)(params, batch, network, key)` gives.

    But for rounding, it is `mean_gradient` of the trace, and what the penalty adds, in fewer operations: all deltas are
    linear in D^L, so that an example's share in the mean need be given to its row of D^L only, and not once more in
    every layer. Unlike a trace, whose rows are examples, all may lie in memory turned, and the products of a CPU be in
    parts of the batch, `most` at the most; see `products.py`. Where inputs are drawn or distorted in the same program,
    XLA would compute them anew for each part.
    """
    refuse_misfits(params, batch, network)
    M = masks(key, batch.inputs, network)
    turned = min(turns(batch.inputs.shape, network.sizes), 1 if network.input_dropout else most)
    z, a = propagate(params, batch.inputs, network, M, turned)
    y = smoothed(batch.targets, a[-1], network)
    output = output_loss(network.output, network.loss)
    C = output.value(z[-1], a[-1], y)
    share = shares(C, batch.weights)
    D = passed_back(share[:, None] * output.delta(z[-1], a[-1], y), z, a, params, network, M, turned)
    cost = jnp.sum(share * C)
    gradient = decayed(summed(dropped(a[:-1], M), D, turned), params, network)
    return cost + penalty(params, network) if network.l2 else cost, typed(gradient, params)


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
