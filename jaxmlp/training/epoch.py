"""The compiled epoch, one program that trains any part of it in a loop; and the compiled evaluation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, Key, UInt32
from numpy.typing import NDArray

from jaxmlp.backprop import value_and_backprop
from jaxmlp.data.dataset import Examples, on_device
from jaxmlp.data.distortions import Distort, distorted
from jaxmlp.devices import on_cpu
from jaxmlp.losses import output_loss
from jaxmlp.network import Batch, Layer, Network, Params, init, loss, propagate, wanted
from jaxmlp.products import all_on_one_core, in_parts, is_long, turns
from jaxmlp.training.batches import Batches, batch_of, converted, fill_weights, filled, shape_of
from jaxmlp.training.config import Experiment
from jaxmlp.training.optimizers import ELEMENTWISE, make
from jaxmlp.training.program import RUN_ONCE, Program

GRADIENTS = {"manual": value_and_backprop, "auto": jax.value_and_grad(loss)}

SEVERAL, BROAD = 40, 256
"""Examples of a batch, and numbers of an example, from which on steps that keep all cores of a CPU busy gather."""

Tree = TypeVar("Tree")
Outputs = TypeVar("Outputs", Array, NDArray[Any])


class TrainState(NamedTuple):
    """What training carries from step to step: a pytree.

    A NamedTuple, as optax's states are: `flax.serialization` takes it as it is. As a `flax.struct.dataclass` it would
    import Flax, 0.3 s at the start of every command.
    """

    params: Params
    optimizer: optax.OptState


@dataclass(frozen=True)
class Recipe:
    """All that a step's program depends on but arrays: what is static for `jax.jit`. Make one with `Recipe.of`.

    Attributes:
        shape: Of an image; of consequence where images are distorted.
        upright: Whether the optimizer is to see matrices as they are, and not transposed.
    """

    network: Network
    optimizer: optax.GradientTransformation
    gradient: Literal["manual", "auto"] = "manual"
    distort: Distort = field(default_factory=Distort)
    shape: tuple[int, ...] = ()
    max_norm: float | None = None
    upright: bool = False

    @staticmethod
    def of(experiment: Experiment, shape: tuple[int, ...], steps: int) -> "Recipe":
        """The recipe of an experiment whose examples have that shape, for epochs of so many steps."""
        network, train = experiment.network, experiment.train
        optimizer = make(experiment.optimizer, experiment.schedule, steps, train.epochs)
        distort, shape = (experiment.distort, shape) if experiment.distort else (Distort(), ())
        upright = experiment.optimizer.name not in ELEMENTWISE
        return Recipe(network, optimizer, train.gradient, distort, shape, experiment.optimizer.max_norm, upright)

    @property
    def draws(self) -> bool:
        """Whether a step draws random numbers."""
        return bool(self.distort) or self.network.dropout > 0 or self.network.input_dropout > 0

    def small(self, batch_size: int, traced: bool = False) -> bool:
        """Whether a step of so many examples stays on one core: its products, and no distortions beside them.

        By hand they may do so in parts of the batch, but not where a step computes a trace or draws its inputs.
        """
        parted = self.gradient == "manual" and not traced and not self.network.input_dropout
        sizes = self.network.sizes
        return not self.distort and (all_on_one_core(batch_size, sizes) or (parted and in_parts(batch_size, sizes)))

    def gathers(self, batch_size: int) -> bool:
        """Whether steps of so many examples gather them, and none is put in order ahead (`batches.py`).

        On a CPU they do where they keep all cores busy, and gathering is little beside the rest: the copy ahead would
        take turns with them.
        """
        if not on_cpu():
            return True
        if self.small(batch_size) or self.distort:
            return False
        return batch_size >= SEVERAL and self.network.sizes[0] >= BROAD

    def turned(self, batch_size: int) -> bool:
        """Whether the products of a step of so many examples are turned, as they may be by hand (`products.py`)."""
        sizes = self.network.sizes
        return self.gradient == "manual" and turns((batch_size, sizes[0]), sizes) > 0


def initial_state(experiment: Experiment) -> TrainState:
    """What the experiment starts from, a function of its seed."""
    seed = jax.device_put(np.uint32(experiment.train.seed))
    state: TrainState = _start(
        seed, network=experiment.network, optimizer=make(experiment.optimizer, experiment.schedule)
    )
    return state


@partial(Program, cpu_options=RUN_ONCE, static_argnames=("network", "optimizer"))
def _start(seed: UInt32[Array, ""], *, network: Network, optimizer: optax.GradientTransformation) -> TrainState:
    params = init(jax.random.key(seed), network)
    return TrainState(params, optimizer.init(params))


def flip(tree: Tree, every: bool = False) -> Tree:
    """The long matrices of a pytree transposed, or every one: its own inverse. See `make_step`."""

    def is_flipped(shape: tuple[int, ...]) -> bool:
        return len(shape) == 2 if every else is_long(shape)

    flipped: Tree = jax.tree.map(lambda leaf: leaf.T if is_flipped(leaf.shape) else leaf, tree)
    return flipped


def key_of(seed: UInt32[Array, ""], number: UInt32[Array, ""]) -> Key[Array, ""]:
    """The key of what a step draws, counted from 0 through the whole run.

    The middle key is one that neither `init` nor private noise has any use for.
    """
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 2**32 - 2), number)


def prepared(batch: Batch, key: Key[Array, ""] | None, recipe: Recipe) -> tuple[Batch, Key[Array, ""] | None]:
    """The examples that a step trains on, distorted where the recipe says so, and the key for dropout."""
    if key is None or not recipe.draws:
        return batch, None
    dropping, distorting = jax.random.split(key)
    if recipe.distort:
        batch = batch._replace(inputs=distorted(distorting, batch.inputs, recipe.shape, recipe.distort))
    return batch, dropping


def updated(state: TrainState, gradient: Params, recipe: Recipe, every: bool = False) -> TrainState:
    """The state after an update along the gradient; all is flipped, the long matrices or every one."""
    seen = (gradient, state.optimizer, state.params)
    updates, optimizer_state = recipe.optimizer.update(*(flip(seen, every) if recipe.upright else seen))
    if recipe.upright:
        updates, optimizer_state = flip((updates, optimizer_state), every)
    params: Any = optax.apply_updates(state.params, updates)
    if recipe.max_norm is not None:
        params = flip(limited(flip(params, every), recipe.max_norm), every)
    return TrainState(params, optimizer_state)


def limited(params: Params, most: float) -> Params:
    """Each unit's incoming weights scaled down to the norm `most`, where theirs is larger (Srivastava 2014)."""
    norms = [jnp.sqrt(jnp.sum(layer.kernel**2, axis=0, keepdims=True)) for layer in params]
    return tuple(
        Layer(layer.kernel * (most / jnp.maximum(norm, most)), layer.bias)
        for layer, norm in zip(params, norms, strict=True)
    )


Step: TypeAlias = Callable[[TrainState, Batch, Any], tuple[TrainState, Array]]


def make_step(recipe: Recipe) -> Step:
    """A step of training: (state, batch, key) to (state, the batch's mean loss).

    The state is flipped: long matrices are held transposed, (n_out, n_in), so that XLA computes a kernel's gradient as
    D^T A, whose transposition melts into the update. On a CPU that takes 0.6 of the time of A^T D where the layer has
    many more inputs than outputs, but longer where it has not; where products are turned, every matrix is held so.
    """
    value_and_gradient = GRADIENTS[recipe.gradient]
    if recipe.gradient == "manual" and recipe.distort:
        value_and_gradient = partial(value_and_backprop, most=1)

    def step(state: TrainState, batch: Batch, key: Any) -> tuple[TrainState, Array]:
        every = recipe.turned(batch.inputs.shape[0])
        batch, dropping = prepared(batch, key, recipe)
        cost, gradient = value_and_gradient(flip(state.params, every), batch, recipe.network, dropping)
        return updated(state, flip(gradient, every), recipe, every), cost

    return step


class Trained(NamedTuple):
    """What `train_steps` gives.

    Attributes:
        losses: The mean loss of each batch, as it was when the batch came up, in the place of its step.
        sound: Whether every number of the state is finite.
    """

    state: TrainState
    losses: Float[Array, " steps"]
    sound: Bool[Array, ""]


class Part(NamedTuple):
    """Which steps of an epoch are trained, what keys they draw with, and how many examples the epoch has.

    Attributes:
        numbers: The five below, in one array, which is sent to the device in a third of the time that five take.
    """

    numbers: UInt32[Array, "5"]

    @staticmethod
    def of(first: int, end: int, seed: int, number: int, total: int) -> "Part":
        """On the device."""
        return Part(jax.device_put(np.array([first, end, seed, number, total], np.uint32)))

    @property
    def first(self) -> Int[Array, ""]:
        """The first step."""
        return self.numbers[0].astype(jnp.int32)

    @property
    def end(self) -> Int[Array, ""]:
        """The first step that is not trained."""
        return self.numbers[1].astype(jnp.int32)

    @property
    def seed(self) -> UInt32[Array, ""]:
        """The run's."""
        return self.numbers[2]

    @property
    def number(self) -> UInt32[Array, ""]:
        """Steps before the epoch, of the whole run."""
        return self.numbers[3]

    @property
    def total(self) -> Int[Array, ""]:
        """Of the epoch's places the first so many are examples', the rest are fill."""
        return self.numbers[4].astype(jnp.int32)


@partial(
    Program,
    small=lambda state, losses, batches, part, *, recipe: recipe.small(shape_of(batches)[1]),
    static_argnames="recipe",
)
def train_steps(
    state: TrainState,
    losses: Float[Array, " steps"],
    batches: Batches,
    part: Part,
    *,
    recipe: Recipe,
) -> Trained:
    """A part of an epoch, one step a batch of `batches`, from `part.first` on.

    All parts are the same program, so that an epoch is the same bit for bit, whole or in parts.
    """
    step, (_, batch_size) = make_step(recipe), shape_of(batches)
    every = recipe.turned(batch_size)

    def at(i: Int[Array, ""], trained: tuple[TrainState, Array]) -> tuple[TrainState, Array]:
        weights = fill_weights(part.total - i * batch_size, (batch_size,))
        key = key_of(part.seed, part.number + i.astype(jnp.uint32)) if recipe.draws else None
        state, loss = step(trained[0], batch_of(batches, i, part.first, weights), key)
        return state, jax.lax.dynamic_update_index_in_dim(trained[1], loss.astype(jnp.float32), i, 0)

    state, losses = jax.lax.fori_loop(part.first, part.end, at, (flip(state, every), losses))
    sound = jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(state)]))
    return Trained(flip(state, every), losses, sound)


def train_epoch(
    state: TrainState, batches: Batches, count: int, *, recipe: Recipe, seed: int = 0, epoch: int = 1
) -> Trained:
    """A whole epoch of `count` examples by `train_steps`; what it draws is a function of the seed and the epoch."""
    steps, _ = shape_of(batches)
    losses, part = jax.device_put(np.zeros(steps, np.float32)), Part.of(0, steps, seed, (epoch - 1) * steps, count)
    trained: Trained = train_steps(state, losses, batches, part, recipe=recipe)
    return trained


def mean_loss(losses: Float[Array, " steps"] | Float[np.ndarray, " steps"], count: int, batch_size: int) -> float:
    """The mean over `count` examples of batches' mean losses, in float64: all batches are full but the last.

    >>> mean_loss(np.array([1.0, 4.0]), count=3, batch_size=2)
    2.0
    """
    means = np.asarray(jax.device_get(losses), np.float64)
    sizes = np.full(means.size, batch_size)
    sizes[-1] = count - batch_size * (means.size - 1)
    return float((means * sizes).sum() / count)


def sound_mean(losses: Float[np.ndarray, " steps"], count: int, batch_size: int) -> float:
    """The mean loss of an epoch without the steps whose own is not finite; NaN where none is."""
    sound = np.isfinite(losses)
    if sound.all():
        return mean_loss(losses, count, batch_size)
    return float(losses[sound].mean(dtype=np.float64)) if sound.any() else float("nan")


EVALUATION_BATCH = 1000


class Portion(NamedTuple):
    """Examples of a set that are scored together, on the device.

    Attributes:
        size: The first so many are the set's, the rest are fill.
    """

    examples: Examples
    size: Int[Array, ""]


def portions(examples: Examples) -> tuple[Portion, ...]:
    """A set in portions of 1,000, the last one filled up: one program scores every set of 1,000 and more."""
    size = max(1, min(EVALUATION_BATCH, examples.size))
    order = filled(np.arange(examples.size, dtype=np.int32), size)
    counts = jax.device_put([np.int32(min(size, examples.size - first)) for first in range(0, order.size, size)])
    return tuple(Portion(on_device(examples.take(rows)), count) for rows, count in zip(order, counts, strict=True))


def evaluate(params: Params, scored: Sequence[Portion], *, network: Network) -> tuple[float, float | None]:
    """The mean loss over all examples of a set in portions and, where the targets are labels, the accuracy."""
    sums = jax.device_get([(portion.size, *score(params, *portion, network=network)) for portion in scored])
    count, loss, right = (float(np.sum(column, dtype=np.float64)) for column in zip(*sums, strict=True))
    return loss / count, right / count if scored[0].examples.targets.ndim == 1 else None


@partial(Program, static_argnames="network")
def score(
    params: Params, examples: Examples, count: Int[Array, ""], *, network: Network
) -> tuple[Float[Array, ""], Int[Array, ""]]:
    """Sums over a portion: of the losses, and how many examples are labelled right (0 for regression)."""
    weights = fill_weights(count, (examples.inputs.shape[0],))
    batch = converted(examples, weights)
    z, a = propagate(params, batch.inputs, network)
    C = output_loss(network.output, network.loss).value(z[-1], a[-1], wanted(batch.targets, a[-1]))
    labelled = batch.targets.ndim == 1
    right = (labels_of(a[-1]) == batch.targets) & (weights > 0) if labelled else jnp.zeros_like(C, bool)
    return jnp.sum(C * weights), jnp.sum(right, dtype=jnp.int32)


def labels_of(a: Outputs) -> Outputs:
    """The labels, shape (B,), that outputs of shape (B, n_L) stand for: the largest's; of a single one, 1 from 1/2 on.

    Takes and gives JAX's arrays or NumPy's.
    """
    return (a[:, 0] >= 0.5).astype(np.int32) if a.shape[1] == 1 else a.argmax(axis=1).astype(np.int32)
