"""A copy of the backward pass with the mistakes that people make in it, one at a time.

Each fault names the cause that the check should give, as a part of its text; None where the pattern can't tell.
"""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxmlp.activations import ACTIVATIONS
from jaxmlp.losses import output_loss
from jaxmlp.network import Batch, Layer, Network, Params, init, propagate, wanted

NETWORK = Network((12, 7, 7, 7, 5), activation="tanh", output="sigmoid", loss="squared_error")
"""Three layers of the same width hide a transposed or a shifted matrix: its shape is right."""

EXAMPLES = 9


class Passing(NamedTuple):
    """All that a backward pass may get wrong."""

    z: tuple[Array, ...]
    a: tuple[Array, ...]
    D: tuple[Array, ...]
    share: Array
    batch: Batch


class Fault(NamedTuple):
    """`deltas` replaces the step from D^(l+1) to D^l, `output` D^L, `share` the mean, `change` the result."""

    cause: str | None
    deltas: Callable[..., Array] | None = None
    output: Callable[..., Array] | None = None
    share: Callable[[Batch], Array] | None = None
    change: Callable[[list[Layer], Passing], list[Layer]] | None = None
    ragged: bool = False
    """Shows only for a weighted batch."""


def faulty_backprop(params: Params, batch: Batch, network: Network, fault: Fault) -> Params:
    """backprop with one fault; with `Fault(None)` it is right."""
    z, a = propagate(params, batch.inputs, network)
    y = wanted(batch.targets, a[-1])
    pullback = ACTIVATIONS[network.activation].pullback
    D = [(fault.output or output_loss(network.output, network.loss).delta)(z[-1], a[-1], y)]
    for l in reversed(range(1, len(params))):
        step = fault.deltas or (lambda l, D, W, z, a, params: pullback(D @ W.T, z, a))
        D.insert(0, step(l, D[0], params[l].kernel, z[l - 1], a[l], params))
    share = (fault.share or right_share)(batch)
    layers = [
        Layer(A.T @ (d * share[:, None]), jnp.sum(d * share[:, None], axis=0)) for A, d in zip(a, D, strict=False)
    ]
    if fault.change is not None:
        layers = fault.change(layers, Passing(z, a, tuple(D), share, batch))
    return tuple(layers)


def right_share(batch: Batch) -> Array:
    if batch.weights is None:
        return jnp.full(batch.inputs.shape[:1], 1 / len(batch.inputs), batch.inputs.dtype)
    return batch.weights / jnp.sum(batch.weights)


@cache
def example(
    dtype: jnp.dtype, ragged: bool, network: Network = NETWORK, examples: int = EXAMPLES
) -> tuple[Params, Batch]:
    keys = jax.random.split(jax.random.key(5), 3 + len(network.sizes))
    params = tuple(
        layer._replace(bias=0.3 * jax.random.normal(key, layer.bias.shape, dtype))
        for layer, key in zip(init(keys[0], network, dtype), keys[3:], strict=False)
    )
    inputs = jax.random.uniform(keys[1], (examples, network.sizes[0]), dtype)
    labels = jax.random.randint(keys[2], (examples,), 0, network.sizes[-1])
    weights = jnp.array([1] * (examples - 3) + [0] * 3, dtype) if ragged else None
    return params, Batch(inputs, labels, weights)


def _each(change: Callable[[Layer], Layer]) -> Callable[[list[Layer], Passing], list[Layer]]:
    return lambda layers, _: [change(layer) for layer in layers]


def _at(l: int, change: Callable[[Layer], Layer]) -> Callable[[list[Layer], Passing], list[Layer]]:
    return lambda layers, _: [change(layer) if k == l else layer for k, layer in enumerate(layers)]


def _is_square(x: Array) -> bool:
    return x.shape[0] == x.shape[1]


def _times(x: Array, factor: float) -> Array:
    return x * jnp.asarray(factor, x.dtype)


FAULTS: dict[str, Fault] = {
    # mean and sum
    "sum for mean": Fault("times B (B = 9", share=lambda b: jnp.ones_like(right_share(b))),
    "mean twice": Fault("times 1/B (B = 9", share=lambda b: right_share(b) / len(b.inputs)),
    "bias: sum for mean": Fault(
        "times B (B = 9", change=lambda g, p: [Layer(x.kernel, _times(x.bias, len(p.share))) for x in g]
    ),
    "bias: mean over the units too": Fault(
        "the same all along axis 0", change=_each(lambda g: Layer(g.kernel, jnp.full_like(g.bias, jnp.mean(g.bias))))
    ),
    # factors
    "sign": Fault("the sign -1", change=_each(lambda g: Layer(-g.kernel, -g.bias))),
    "factor 2 of the square forgotten": Fault("times 1/2", change=_each(lambda g: Layer(g.kernel / 2, g.bias / 2))),
    "sign in one layer": Fault("the sign -1", change=_at(1, lambda g: Layer(-g.kernel, -g.bias))),
    "factor 1.001 everywhere": Fault(
        "a constant, 1.001", change=_each(lambda g: Layer(_times(g.kernel, 1.001), _times(g.bias, 1.001)))
    ),
    "factor 1.001 on one kernel": Fault(
        "a constant, 1.001", change=_at(0, lambda g: Layer(_times(g.kernel, 1.001), g.bias))
    ),
    "factor 1.001 on one element": Fault(
        "only the element [3, 2]",
        change=_at(0, lambda g: Layer(g.kernel.at[3, 2].set(_times(g.kernel[3, 2], 1.001)), g.bias)),
    ),
    # shapes that happen to fit
    "kernel transposed": Fault("transposed", change=_at(1, lambda g: Layer(g.kernel.T, g.bias))),
    "every square kernel transposed": Fault(
        "transposed", change=_each(lambda g: Layer(g.kernel.T, g.bias) if _is_square(g.kernel) else g)
    ),
    "W for its transpose on the way back": Fault(
        "what passes from one to the other",
        deltas=lambda l, D, W, z, a, params: ACTIVATIONS["tanh"].pullback(D @ (W if _is_square(W) else W.T), z, a),
    ),
    "W of the next layer": Fault(
        "what passes from one to the other",
        deltas=lambda l, D, W, z, a, params: ACTIVATIONS["tanh"].pullback(
            D @ (params[1].kernel if l == 2 else W).T, z, a
        ),
    ),
    "layers shifted": Fault("shifted", change=lambda g, _: [g[0], g[2], g[2], g[3]]),
    "layers swapped": Fault("shifted", change=lambda g, _: [g[0], g[2], g[1], g[3]]),
    # derivatives
    "activation derivative missing": Fault("activation derivative", deltas=lambda l, D, W, z, a, params: D @ W.T),
    "activation derivative missing in one layer": Fault(
        "activation derivative",
        deltas=lambda l, D, W, z, a, params: D @ W.T if l == 2 else ACTIVATIONS["tanh"].pullback(D @ W.T, z, a),
    ),
    "derivative of another activation": Fault(
        "activation derivative", deltas=lambda l, D, W, z, a, params: ACTIVATIONS["sigmoid"].pullback(D @ W.T, z, a)
    ),
    "derivative at a for z": Fault(
        "activation derivative", deltas=lambda l, D, W, z, a, params: (D @ W.T) * (1 - jnp.tanh(a) ** 2)
    ),
    "output derivative missing": Fault("where the backward pass begins", output=lambda z, a, y: 2 * (a - y)),
    "cross-entropy's delta for the squared error's": Fault(
        "where the backward pass begins", output=lambda z, a, y: a - y
    ),
    "a - y the wrong way round": Fault("the sign -1", output=lambda z, a, y: 2 * (y - a) * a * (1 - a)),
    # activations
    "stale activation: a^l for a^(l-1)": Fault(
        "activations that enter",
        change=lambda g, p: [
            Layer((p.a[k + 1] if p.a[k + 1].shape == p.a[k].shape else p.a[k]).T @ (p.D[k] * p.share[:, None]), x.bias)
            for k, x in enumerate(g)
        ],
    ),
    "z for a": Fault(
        "activations that enter",
        change=lambda g, p: [
            Layer((p.z[k - 1] if k else p.a[0]).T @ (p.D[k] * p.share[:, None]), x.bias) for k, x in enumerate(g)
        ],
    ),
    "stale activation: the batch shifted by one": Fault(
        "activations that enter",
        change=lambda g, p: [
            Layer(jnp.roll(p.a[k], 1, axis=0).T @ (p.D[k] * p.share[:, None]), x.bias) for k, x in enumerate(g)
        ],
    ),
    # parts of the result
    "bias gradient is zero": Fault("all zero", change=_each(lambda g: Layer(g.kernel, jnp.zeros_like(g.bias)))),
    "first layer is zero": Fault("all zero", change=_at(0, lambda g: Layer(*map(jnp.zeros_like, g)))),
    "smallest leaf only": Fault("times 2", change=_at(3, lambda g: Layer(g.kernel, _times(g.bias, 2)))),
    "last row of a kernel forgotten": Fault(
        "only row", change=_at(0, lambda g: Layer(g.kernel.at[-1].set(jnp.zeros_like(g.kernel[-1])), g.bias))
    ),
    "one column twice": Fault(
        "only column",
        change=_at(2, lambda g: Layer(g.kernel.at[:, 4].multiply(jnp.ones((), g.bias.dtype) * 2), g.bias)),
    ),
    "bias of the wrong layer": Fault("shifted", change=lambda g, _: [g[0], Layer(g[1].kernel, g[2].bias), *g[2:]]),
    "wrong broadcast: kernel's rows averaged": Fault(
        "the same all along axis 0",
        change=_each(lambda g: Layer(jnp.broadcast_to(jnp.mean(g.kernel, 0, keepdims=True), g.kernel.shape), g.bias)),
    ),
    "one example forgotten": Fault(
        None, share=lambda b: right_share(b) * (jnp.arange(len(b.inputs)) > 0).astype(b.inputs.dtype)
    ),
    # ragged batches
    "weights ignored": Fault(
        "args[0].weights is ignored",
        share=lambda b: jnp.full_like(right_share(b), 1 / len(b.inputs)),
        ragged=True,
    ),
    "mean over B for the sum of the weights": Fault(
        "mean(args[0].weights)",
        share=lambda b: right_share(b) if b.weights is None else b.weights / len(b.inputs),
        ragged=True,
    ),
}
