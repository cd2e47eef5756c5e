"""Losses `C_i = loss(a_i, y_i)`, each with its derivative, in one table; and the pairs that are fused.

Arrays have shape (B, n), a row an example; a loss is summed over the n outputs and returns shape (B,). The mean over
the examples is not taken here: what an example wants must not depend on its neighbours.

A loss such as the squared error goes with any output activation, and the delta of the output layer is the chain rule:

    D^L = f_L'(z^L)^T dC/da^L

The two cross-entropies take a logarithm of the activation, which overflows where the activation rounds to 0. Each goes
with the one activation that makes its terms simple functions of z, and is computed from z, finite for logits of any
size; the two Jacobians cancel and leave `D^L = a^L - y` (for softmax: where each row of y sums to 1, as labels' do).

At the kink of the absolute error, a = y, the derivative here is 0, the middle of what is possible; JAX's may differ.
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmlp.activations import ACTIVATIONS, ActivationName
from jaxmlp.errors import NetworkError

Rows = Float[Array, "B n"]
PerExample = Float[Array, " B"]

LossName = Literal["squared_error", "absolute_error", "huber", "cross_entropy", "binary_cross_entropy"]


class OutputLoss(NamedTuple):
    """An output activation and a loss together, both functions of (z^L, a^L, y).

    `value` gives C, shape (B,); `delta` gives D^L = dC_i/dz^L_i, shape (B, n).
    """

    value: Callable[[Array, Array, Array], Array]
    delta: Callable[[Array, Array, Array], Array]


# Losses of the activation alone: value(a, y) = C and derivative(a, y) = dC/da.


def squared_error(a: Rows, y: Rows) -> PerExample:
    return jnp.sum((a - y) ** 2, axis=-1)


def squared_error_derivative(a: Rows, y: Rows) -> Rows:
    return 2 * (a - y)


def absolute_error(a: Rows, y: Rows) -> PerExample:
    return jnp.sum(jnp.abs(a - y), axis=-1)


def absolute_error_derivative(a: Rows, y: Rows) -> Rows:
    return jnp.sign(a - y)


def huber(a: Rows, y: Rows) -> PerExample:
    """e^2 / 2 where |e| <= 1, |e| - 1/2 beyond, with e = a - y (Huber 1964, delta = 1)."""
    e = jnp.abs(a - y)
    q = jnp.minimum(e, 1)
    return jnp.sum(q * (e - 0.5 * q), axis=-1)


def huber_derivative(a: Rows, y: Rows) -> Rows:
    return jnp.clip(a - y, -1, 1)


LOSSES = {
    "squared_error": (squared_error, squared_error_derivative),
    "absolute_error": (absolute_error, absolute_error_derivative),
    "huber": (huber, huber_derivative),
}

# Losses fused with the one output activation that they go with: functions of (z, a, y).


def softmax_cross_entropy(z: Rows, a: Rows, y: Rows) -> PerExample:
    """-sum_k y_k log softmax(z)_k."""
    # a logarithm may be -inf where logits differ by more than the type can hold; nothing of it is wanted where y is 0
    return -jnp.sum(jnp.where(y == 0, 0, y * jax.nn.log_softmax(z, axis=-1)), axis=-1)


def softmax_cross_entropy_delta(z: Rows, a: Rows, y: Rows) -> Rows:
    # d/dz_j of sum_k y_k (logsumexp(z) - z_k) = a_j sum_k y_k - y_j; the sum is 1 for labels, and a - y remains
    return a * jnp.sum(y, axis=-1, keepdims=True) - y


def sigmoid_cross_entropy(z: Rows, a: Rows, y: Rows) -> PerExample:
    """-sum_k [y_k log a_k + (1 - y_k) log(1 - a_k)], where -log a = softplus(-z) and -log(1 - a) = softplus(z)."""
    return jnp.sum(y * jax.nn.softplus(-z) + (1 - y) * jax.nn.softplus(z), axis=-1)


def sigmoid_cross_entropy_delta(z: Rows, a: Rows, y: Rows) -> Rows:
    # d/dz: -y (1 - a) + (1 - y) a = a - y
    return a - y


FUSED: dict[str, tuple[ActivationName, OutputLoss]] = {
    "cross_entropy": ("softmax", OutputLoss(softmax_cross_entropy, softmax_cross_entropy_delta)),
    "binary_cross_entropy": ("sigmoid", OutputLoss(sigmoid_cross_entropy, sigmoid_cross_entropy_delta)),
}

assert (*LOSSES, *FUSED) == get_args(LossName), "LossName, and LOSSES and FUSED, name others, or in another order"

BOUNDED = {"cross_entropy": (0.0, math.inf), "binary_cross_entropy": (0.0, 1.0)}
"""Losses that sink without end where targets lie outside."""


def output_loss(output: ActivationName, loss: LossName) -> OutputLoss:
    """The output activation `output` and the loss `loss` together.

    Raises:
        NetworkError: for a cross-entropy with another activation than its own.

    >>> output_loss("softmax", "binary_cross_entropy")
    Traceback (most recent call last):
    ...
    jaxmlp.errors.NetworkError: loss 'binary_cross_entropy' does not go with output 'softmax': it goes with output \
'sigmoid' only. Pairs: sigmoid + binary_cross_entropy, softmax + cross_entropy, any output + squared_error, \
absolute_error or huber
    """
    if loss in FUSED:
        own, fused = FUSED[loss]
        if output != own:
            raise NetworkError(
                f"loss {loss!r} does not go with output {output!r}: it goes with output {own!r} only. Pairs: "
                "sigmoid + binary_cross_entropy, softmax + cross_entropy, any output + squared_error, absolute_error "
                "or huber"
            )
        return fused
    value, derivative = LOSSES[loss]
    pullback = ACTIVATIONS[output].pullback
    return OutputLoss(
        value=lambda z, a, y: value(a, y),
        delta=lambda z, a, y: pullback(derivative(a, y), z, a),
    )
