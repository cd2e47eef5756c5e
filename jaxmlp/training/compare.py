"""The hand-derived and the automatic gradient side by side: one experiment, trained with both from the same start."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from jaxmlp.data.dataset import Dataset, Examples, on_device, split
from jaxmlp.errors import ExperimentError
from jaxmlp.network import Network
from jaxmlp.training.config import Experiment
from jaxmlp.training.epoch import TrainState, flip, initial_state, make_step, masks, mean_loss, order_of, train_epoch
from jaxmlp.training.fit import check_fit, ignore, refuse_divergence, scores
from jaxmlp.training.optimizers import make


@dataclass(frozen=True)
class Pair:
    """An epoch of both."""

    epoch: int
    train_loss: tuple[float, float]
    """Manual, auto; and so below."""
    validation_accuracy: tuple[float | None, float | None]
    drift: float
    """The largest leaf's drift at the epoch's end."""


@dataclass(frozen=True)
class Comparison:
    """Two runs that differ in nothing but the gradient."""

    epochs: tuple[Pair, ...]
    leaves: tuple[str, ...]
    """[0].kernel, [0].bias, [1].kernel, ..., which are W^1, b^1, W^2, ...: the columns of `drift`."""
    drift: Float[np.ndarray, "steps leaves"]
    """After every step, how far the parameters lie apart: |p_manual - p_auto| / |p_auto|, a leaf a column."""
    step_seconds: Float[np.ndarray, "turns 2"]
    """The mean time of a step, manual and auto, in each of TURNS turns after the training; see `step_times`."""


Both: TypeAlias = tuple[TrainState, TrainState]


@partial(jax.jit, static_argnames=("network", "optimizer"))
def drift_of_epoch(
    manual: TrainState,
    auto: TrainState,
    examples: Examples,
    order: Int[Array, "steps batch_size"],
    *,
    network: Network,
    optimizer: optax.GradientTransformation,
) -> Float[Array, "steps leaves"]:
    """Both trained through an epoch in lockstep: the distance of their parameters after every step."""
    steps = make_step(examples, network, optimizer, "manual"), make_step(examples, network, optimizer, "auto")

    def both(states: Both, at: tuple[Array, Array]) -> tuple[Both, Array]:
        states = steps[0](states[0], at)[0], steps[1](states[1], at)[0]
        ours, theirs = (jax.tree.leaves(state.params) for state in states)
        apart = [distance(p, q) for p, q in zip(ours, theirs, strict=True)]
        return states, jnp.stack(apart)

    _, drift = jax.lax.scan(both, (flip(manual), flip(auto)), (order, masks(examples.inputs.shape[0], order.shape)))
    return drift


def distance(p: Float[Array, "*shape"], q: Float[Array, "*shape"]) -> Float[Array, ""]:
    """|p - q| / |q|, and 0 where both are 0, as biases are at the start."""
    apart, size = jnp.linalg.norm((p - q).ravel()), jnp.linalg.norm(q.ravel())
    return jnp.where(apart == 0, 0, apart / size)


TURNS, STEPS = 15, 200


def step_times(
    manual: TrainState,
    auto: TrainState,
    examples: Examples,
    order: Int[Array, "steps batch_size"],
    *,
    network: Network,
    optimizer: optax.GradientTransformation,
) -> Float[np.ndarray, "turns 2"]:
    """The mean time of a step in seconds, of each in turn, TURNS times: so many, however few epochs there were.

    A turn trains through the first STEPS batches of `order`, or all where it has fewer. One turn more comes
    before them, untimed, and holds the compilation. The two take turns so that a slower minute of the machine slows
    both, and their ratio is to be taken turn by turn.
    """
    order, seconds = order[:STEPS], []
    for _ in range(1 + TURNS):
        state: TrainState
        gradient: Literal["manual", "auto"]
        for gradient, state in (("manual", manual), ("auto", auto)):
            begun = time.perf_counter()
            trained = train_epoch(state, examples, order, network=network, optimizer=optimizer, gradient=gradient)
            trained.losses.block_until_ready()
            seconds.append((time.perf_counter() - begun) / order.shape[0])
    return np.reshape(seconds, (-1, 2))[1:]


def compare(experiment: Experiment, dataset: Dataset, *, report: Callable[[Pair], None] = ignore) -> Comparison:
    """Trains the experiment with both gradients, an epoch of each in turn, from the same start on the same batches.

    Then it times them.

    Raises:
        DataError: for a validation split that leaves nothing to train on.
        ExperimentError: for a network whose sizes don't fit the data, or a private experiment.
        DivergedError: where a loss is not a number any more.
    """
    if experiment.privacy.epsilon is not None:
        raise ExperimentError(
            f"privacy.epsilon is {experiment.privacy.epsilon:g}, but the automatic gradient can't train privately: "
            "expected None to compare, as by --privacy.epsilon None"
        )
    check_fit(experiment, dataset)
    dataset, held_out = split(dataset, experiment.data.validation, experiment.train.seed)
    network, train, count = experiment.network, experiment.train, dataset.train.size
    optimizer = make(experiment.optimizer)
    examples, validation = on_device(dataset.train), on_device(held_out)
    states = {"manual": initial_state(experiment), "auto": initial_state(experiment)}

    pairs, drifts = [], []
    for epoch in range(1, train.epochs + 1):
        order = jax.device_put(order_of(train.seed, epoch, count, min(train.batch_size, count)))
        drift = drift_of_epoch(**states, examples=examples, order=order, network=network, optimizer=optimizer)
        drifts.append(jax.device_get(drift))
        losses, accuracies = [], []
        for gradient in ("manual", "auto"):
            states[gradient], found, _ = train_epoch(
                states[gradient], examples, order, network=network, optimizer=optimizer, gradient=gradient
            )
            losses.append(mean_loss(found, count, order.shape[1]))
            accuracies.append(scores(states[gradient].params, validation, experiment)[1] if held_out.size else None)
        refuse_divergence(experiment, epoch, manual=losses[0], automatic=losses[1])
        pairs.append(
            Pair(
                epoch=epoch,
                train_loss=(losses[0], losses[1]),
                validation_accuracy=(accuracies[0], accuracies[1]),
                drift=float(drifts[-1][-1].max()),
            )
        )
        report(pairs[-1])
    leaves = tuple(jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(states["auto"].params))
    seconds = step_times(**states, examples=examples, order=order, network=network, optimizer=optimizer)
    return Comparison(tuple(pairs), leaves, np.concatenate(drifts), seconds)
