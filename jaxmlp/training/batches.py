"""Mini-batches: which examples each has, and the examples put there."""

import math
from typing import Any, NamedTuple, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from numpy.typing import NDArray

from jaxmlp.data.dataset import Examples, as_inputs, empty, on_device
from jaxmlp.network import Batch
from jaxmlp.training.program import Program

Order = TypeVar("Order", Array, NDArray[np.int32])


def order_of(seed: int, epoch: int, count: int, batch_size: int) -> Int[np.ndarray, "steps batch_size"]:
    """The indices of epoch `epoch`'s mini-batches: a function of its arguments alone, so that nothing need be saved.

    Every example occurs once. The last batch is filled up with index 0; `fill_weights` gives the fill the weight 0.
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


def fill_weights(count: int | Int[Array, ""], shape: tuple[int, ...]) -> Float[Array, "*shape"]:
    """Weight 1 for the first `count` places of a filled order of that shape, 0 for the fill."""
    return (jnp.arange(math.prod(shape), dtype=jnp.int32) < count).astype(jnp.float32).reshape(shape)


def gather(examples: Examples, indices: Int[Array, " B"], weights: Float[Array, " B"]) -> Batch:
    """The mini-batch at `indices`, converted to what the network sees.

    The indices are known to lie inside: JAX's default index mode would check each row, five times slower on a CPU.
    """
    return converted(rows(examples, indices), weights)


def rows(examples: Examples, indices: Int[Array, "*B"]) -> Examples:
    """The examples at indices of any shape, in that shape."""
    found: Any = (jnp.asarray(array).at[indices].get(mode="promise_in_bounds") for array in examples)
    return Examples(*found)


in_order = Program(rows)
"""`rows`, compiled."""


class Ordered(NamedTuple):
    """All examples, on the device, and which of them each batch of an epoch has."""

    examples: Examples
    order: Int[Array, "steps batch_size"]


Batches: TypeAlias = Examples | Ordered
"""Some steps' examples in order, inputs of shape (steps, batch_size, n_0); or all, from which each step gathers."""


def shape_of(batches: Batches) -> tuple[int, int]:
    """How many steps there are batches for, and how many examples a batch has."""
    steps, batch_size = (batches.order if isinstance(batches, Ordered) else batches.inputs).shape[:2]
    return int(steps), int(batch_size)


def batch_of(
    batches: Batches, step: int | Int[Array, ""], first: int | Int[Array, ""], weights: Float[Array, " B"]
) -> Batch:
    """The batch of an epoch's step, converted to what the network sees; those in order begin with the step `first`."""
    if isinstance(batches, Ordered):
        return gather(batches.examples, jax.lax.dynamic_index_in_dim(batches.order, step, keepdims=False), weights)
    examples: Any = (jax.lax.dynamic_index_in_dim(array, step - first, keepdims=False) for array in batches)
    return converted(Examples(*examples), weights)


def converted(examples: Examples, weights: Float[Array, " B"]) -> Batch:
    """The batch that raw examples make."""
    return Batch(as_inputs(jnp.asarray(examples.inputs)), jnp.asarray(examples.targets), weights)


AHEAD = 2**25
"""Bytes of examples that are put in order at a time, but for a batch that has more."""


class Feed:
    """An epoch's batches in the order of its steps, some steps at a time.

    Ahead, NumPy copies their examples, whole rows at a time, into one of two buffers that JAX takes as they are: while
    a program trains on one, and JAX has returned already, the other is filled, by a core that would idle. An epoch of
    the lesson's network so takes 0.7 of the time that it takes where the program gathers each batch (docs/speed.md).
    Else the device holds all examples, and the epoch's order.
    """

    def __init__(self, examples: Examples, seed: int, batch_size: int, ahead: bool) -> None:
        self.seed, self.count, self.batch_size = seed, examples.size, batch_size
        self.most = math.ceil(self.count / batch_size)
        """Steps that can be had at a time."""
        self.buffers: list[Examples] = []
        self.examples = examples if ahead else on_device(examples)
        if ahead:
            a_batch = batch_size * sum(array[0].nbytes for array in examples)
            self.most = max(1, min(self.most, AHEAD // a_batch))
            shapes = [(self.most, batch_size, *array.shape[1:]) for array in examples]
            self.buffers = [
                Examples(*(empty(shape, array.dtype) for shape, array in zip(shapes, examples, strict=True)))
                for _ in range(2)
            ]
        self.epoch, self.order = 0, np.zeros((0, batch_size), np.int32)
        self.placed = jax.device_put(self.order)
        """The order on the device, where steps gather."""

    def order_of(self, epoch: int) -> Int[np.ndarray, "steps batch_size"]:
        """See the function."""
        if epoch != self.epoch:
            order = order_of(self.seed, epoch, self.count, self.batch_size)
            placed = self.placed if self.buffers else jax.device_put(order)
            self.epoch, self.order, self.placed = epoch, order, placed  # all or none, if interrupted
        return self.order

    def __call__(self, epoch: int, first: int, end: int) -> Batches:
        """The batches of steps `first` to `end` - 1, among whatever else; good until the next call but one."""
        order = self.order_of(epoch)
        if not self.buffers:
            return Ordered(self.examples, self.placed)
        for source, target in zip(self.examples, self.buffers[1], strict=True):
            # other modes than "clip" would take a buffer of their own
            np.take(source, order[first:end], axis=0, out=target[: end - first], mode="clip")
        self.buffers.reverse()
        return Examples(*jax.device_put(self.buffers[0]))
