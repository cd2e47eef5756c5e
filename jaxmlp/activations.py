"""Activations `a = f(z)`, each with its derivative, in one table.

Both are derived and taught in rows: `z` and `a` have shape (B, n), a row an example. What backpropagation needs of an
activation is its pullback, `f'(z)^T g`: given `g = dC/da`, it returns `dC/dz`. For an activation that acts on each
element alone the Jacobian `f'(z)` is diagonal, and the pullback is a product, element by element.

A derivative may use `a`, which the forward pass has computed anyway. At a kink the derivatives agree with JAX's
convention for the function at hand (relu'(0) = 0, leaky_relu'(0) = 1).
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Rows = Float[Array, "B n"]
Function = Callable[[Array], Array]
Derivative = Callable[[Array, Array], Array]  # (z, a) -> f'(z), element by element

ActivationName = Literal[
    "sigmoid",
    "tanh",
    "scaled_tanh",
    "relu",
    "leaky_relu",
    "elu",
    "softplus",
    "silu",
    "gelu",
    "gelu_tanh",
    "softmax",
    "identity",
]


class Activation(NamedTuple):
    """`forward(z)` is a; `pullback(g, z, a)` is `f'(z)^T g`; all arrays have shape (B, n)."""

    forward: Callable[[Array], Array]
    pullback: Callable[[Array, Array, Array], Array]


def elementwise(function: Function, derivative: Derivative) -> Activation:
    """An activation that acts on each element alone, from f and (z, a) -> f'(z)."""
    return Activation(function, lambda g, z, a: g * derivative(z, a))


LEAK = 0.01
"""Slope of leaky_relu left of 0."""

TANH_SCALE, TANH_SLOPE = 1.7159, 2 / 3
"""f(z) = 1.7159 tanh(2z/3): f(1) = 1, f(-1) = -1 (LeCun, Bottou, Orr, Mueller, "Efficient BackProp", 1998)."""


def scaled_tanh(z: Rows) -> Rows:
    return TANH_SCALE * jnp.tanh(TANH_SLOPE * z)


def scaled_tanh_derivative(z: Rows, a: Rows) -> Rows:
    # s t(1 - tanh^2) with tanh = a / s
    return (TANH_SLOPE / TANH_SCALE) * (TANH_SCALE - a) * (TANH_SCALE + a)


def relu_derivative(z: Rows, a: Rows) -> Rows:
    return jnp.where(z > 0, jnp.ones_like(z), jnp.zeros_like(z))


def leaky_relu_derivative(z: Rows, a: Rows) -> Rows:
    return jnp.where(z >= 0, jnp.ones_like(z), jnp.full_like(z, LEAK))


def elu_derivative(z: Rows, a: Rows) -> Rows:
    # e^z left of 0, 1 right of it; e^z rather than a + 1, which cancels where a is near -1
    return jnp.exp(jnp.minimum(z, 0))


def silu_derivative(z: Rows, a: Rows) -> Rows:
    # (z s)' = s + z s(1 - s)
    s = jax.nn.sigmoid(z)
    return s * (1 + z * (1 - s))


def gelu(z: Rows) -> Rows:
    return jax.nn.gelu(z, approximate=False)


def gelu_derivative(z: Rows, a: Rows) -> Rows:
    # (z Phi(z))' = Phi(z) + z phi(z); Phi through erfc, which keeps its digits for negative z
    Phi = 0.5 * jax.lax.erfc(-z / math.sqrt(2))
    phi = jnp.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    return Phi + z * phi


def gelu_tanh(z: Rows) -> Rows:
    return jax.nn.gelu(z, approximate=True)


def gelu_tanh_derivative(z: Rows, a: Rows) -> Rows:
    # f = z (1 + tanh u) / 2 = z s with s = sigmoid(2u), u = c (z + k z^3), so f' = s + z s (1 - s) 2 u'. 1 - s is taken
    # as sigmoid(-2u), which keeps its digits; beyond 16 f' is 0 or 1, and z^3 would overflow
    c, k = math.sqrt(2 / math.pi), 0.044715
    z = jnp.clip(z, -16, 16)
    u = c * z * (1 + k * z * z)
    s = jax.nn.sigmoid(2 * u)
    return s + z * s * jax.nn.sigmoid(-2 * u) * (2 * c) * (1 + 3 * k * z * z)


def softmax(z: Rows) -> Rows:
    return jax.nn.softmax(z, axis=-1)


def softmax_pullback(g: Rows, z: Rows, a: Rows) -> Rows:
    # da_i/dz_j = a_i (delta_ij - a_j), which is symmetric: f'^T g = a * (g - sum_i a_i g_i)
    return a * (g - jnp.sum(a * g, axis=-1, keepdims=True))


ACTIVATIONS: dict[ActivationName, Activation] = {
    "sigmoid": elementwise(jax.nn.sigmoid, lambda z, a: a * (1 - a)),
    "tanh": elementwise(jnp.tanh, lambda z, a: (1 - a) * (1 + a)),
    "scaled_tanh": elementwise(scaled_tanh, scaled_tanh_derivative),
    "relu": elementwise(jax.nn.relu, relu_derivative),
    "leaky_relu": elementwise(lambda z: jax.nn.leaky_relu(z, LEAK), leaky_relu_derivative),
    "elu": elementwise(jax.nn.elu, elu_derivative),
    "softplus": elementwise(jax.nn.softplus, lambda z, a: jax.nn.sigmoid(z)),
    "silu": elementwise(jax.nn.silu, silu_derivative),
    "gelu": elementwise(gelu, gelu_derivative),
    "gelu_tanh": elementwise(gelu_tanh, gelu_tanh_derivative),
    "softmax": Activation(softmax, softmax_pullback),
    "identity": Activation(lambda z: z, lambda g, z, a: g),
}

assert tuple(ACTIVATIONS) == get_args(ActivationName), "ActivationName and ACTIVATIONS name others, or in another order"

RANGES = {"sigmoid": (0.0, 1.0), "softmax": (0.0, 1.0), "tanh": (-1.0, 1.0), "scaled_tanh": (-TANH_SCALE, TANH_SCALE)}
"""Beyond which no output comes."""
