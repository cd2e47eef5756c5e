"""The compiled epoch: one program that scans over all mini-batches; and the compiled evaluation."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int
from numpy.typing import NDArray

from jaxmlp.backprop import value_and_backprop
from jaxmlp.data.dataset import Examples, as_inputs
from jaxmlp.losses import output_loss
from jaxmlp.network import Batch, Network, Params, loss, propagate, wanted

GRADIENTS = {"manual": value_and_backprop, "auto": jax.value_and_grad(loss)}

Tree = TypeVar("Tree")
Outputs = TypeVar("Outputs", Array, NDArray[Any])
Order = TypeVar("Order", Array, NDArray[Any])


class TrainState(NamedTuple):
    """What training carries from step to step: a pytree."""

    params: Params
    optimizer: optax.OptState


def order_of(seed: int, epoch: int, count: int, batch_size: int) -> Int[np.ndarray, "steps batch_size"]:
    """The indices of epoch `epoch`'s mini-batches: a function of its arguments alone, so that nothing need be saved.

    Every example occurs once. The last batch is filled up with index 0; `masks` gives the fill the weight 0.
    NumPy's shuffle, since `jax.random.permutation` takes ten times longer on a CPU.

    >>> order_of(seed=0, epoch=1, count=5, batch_size=2)
    array([[1, 4],
           [3, 0],
           [2, 0]], dtype=int32)
    """
    order = np.random.default_rng([seed, epoch]).permutation(count).astype(np.int32)
    return filled(order, batch_size)


def filled(order: Order, batch_size: int) -> Order:
    """`order` in rows of `batch_size`, the last one filled up with index 0: JAX's array or NumPy's."""
    fill = -order.size % batch_size
    pad = jnp.pad if isinstance(order, jax.Array) else np.pad
    return pad(order, (0, fill)).reshape(-1, batch_size)


def masks(count: int, shape: tuple[int, ...]) -> Float[Array, "steps batch_size"]:
    """Weight 1 for the first `count` places of a filled order of that shape, 0 for the fill."""
    return (jnp.arange(math.prod(shape)) < count).astype(jnp.float32).reshape(shape)


def gather(examples: Examples, indices: Int[Array, " B"], weights: Float[Array, " B"]) -> Batch:
    """The mini-batch at `indices`, converted to what the network sees.

    The indices are known to lie inside: JAX's default index mode would check each row, five times slower on a CPU.
    """
    inputs, targets = (jnp.asarray(array).at[indices].get(mode="promise_in_bounds") for array in examples)
    return Batch(as_inputs(inputs), targets, weights)


def flip(tree: Tree) -> Tree:
    """Every matrix of a pytree transposed."""
    flipped: Tree = jax.tree.map(lambda leaf: leaf.T if leaf.ndim == 2 else leaf, tree)
    return flipped


Step: TypeAlias = Callable[[TrainState, tuple[Array, Array]], tuple[TrainState, Array]]


def make_step(
    examples: Examples, network: Network, optimizer: optax.GradientTransformation, gradient: Literal["manual", "auto"]
) -> Step:
    """A step of training as `jax.lax.scan` takes it: (state, (indices, weights)) to (state, sum of the batch's losses).

    The state is flipped: matrices are held transposed, (n_out, n_in), so that XLA computes a kernel's gradient as
    D^T A. On a CPU that takes 0.6 of the time of A^T D where the layer has many more inputs than outputs. The
    transpositions melt into the products.
    """
    value_and_gradient = GRADIENTS[gradient]

    def step(state: TrainState, at: tuple[Array, Array]) -> tuple[TrainState, Array]:
        batch = gather(examples, *at)
        cost, gradients = value_and_gradient(flip(state.params), batch, network)
        updates, optimizer_state = optimizer.update(flip(gradients), state.optimizer, state.params)
        params: Any = optax.apply_updates(state.params, updates)
        return TrainState(params, optimizer_state), cost * jnp.sum(at[1])

    return step


@partial(jax.jit, static_argnames=("network", "optimizer", "gradient"), donate_argnames="state")
def train_epoch(
    state: TrainState,
    examples: Examples,
    order: Int[Array, "steps batch_size"],
    *,
    network: Network,
    optimizer: optax.GradientTransformation,
    gradient: Literal["manual", "auto"],
) -> tuple[TrainState, Float[Array, ""]]:
    """One step of `optimizer` a row of `order`: the new state, and the mean loss of the examples as they were met.

    `state` is donated: its buffers are reused, and must not be used after the call.
    """
    count = examples.inputs.shape[0]
    step = make_step(examples, network, optimizer, gradient)
    state, costs = jax.lax.scan(step, flip(state), (order, masks(count, order.shape)))
    return flip(state), jnp.sum(costs) / count


class Scores(NamedTuple):
    """Sums over examples: `loss`, of their losses; `right`, of those labelled right (0 for regression)."""

    loss: Float[Array, ""]
    right: Int[Array, ""]


EVALUATION_BATCH = 1000


@partial(jax.jit, static_argnames="network")
def evaluate(params: Params, examples: Examples, *, network: Network) -> Scores:
    """Scores over every example, in batches of 1,000 and one program."""
    count = examples.inputs.shape[0]
    order = filled(jnp.arange(count, dtype=jnp.int32), min(EVALUATION_BATCH, count))
    labelled = examples.targets.ndim == 1

    def score(sums: Scores, at: tuple[Array, Array]) -> tuple[Scores, None]:
        batch, mask = gather(examples, *at), at[1]
        z, a = propagate(params, batch.inputs, network)
        C = output_loss(network.output, network.loss).value(z[-1], a[-1], wanted(batch.targets, a[-1]))
        right = (labels_of(a[-1]) == batch.targets) & (mask > 0) if labelled else jnp.zeros_like(C, bool)
        return Scores(sums.loss + jnp.sum(C * mask), sums.right + jnp.sum(right, dtype=jnp.int32)), None

    none = Scores(jnp.zeros((), jnp.float32), jnp.zeros((), jnp.int32))
    sums, _ = jax.lax.scan(score, none, (order, masks(count, order.shape)))
    return sums


def labels_of(a: Outputs) -> Outputs:
    """The labels, shape (B,), that outputs of shape (B, n_L) stand for: the largest's; of a single one, 1 from 1/2 on.

    Takes and gives JAX's arrays or NumPy's.
    """
    return (a[:, 0] >= 0.5).astype(np.int32) if a.shape[1] == 1 else a.argmax(axis=1).astype(np.int32)
