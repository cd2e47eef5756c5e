"""The hand-derived and the automatic gradient side by side: one experiment, trained with both from the same start."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxmlp.data.dataset import Dataset, Examples, on_device
from jaxmlp.errors import ExperimentError
from jaxmlp.training.batches import converted, fill_weights, in_order, order_of
from jaxmlp.training.config import Experiment, refuse_no_experiment
from jaxmlp.training.epoch import (
    Part,
    Recipe,
    TrainState,
    evaluate,
    flip,
    initial_state,
    key_of,
    make_step,
    mean_loss,
    portions,
    sound_mean,
    train_epoch,
)
from jaxmlp.training.fit import diverged, divided, ignore, refuse_divergence
from jaxmlp.training.program import Program


@dataclass(frozen=True)
class Pair:
    """An epoch of both.

    Attributes:
        epoch: From 1.
        train_loss: Manual, auto.
        validation_accuracy: Manual, auto; None without a validation split, or for regression.
        drift: The largest leaf's drift at the epoch's end.
    """

    epoch: int
    train_loss: tuple[float, float]
    validation_accuracy: tuple[float | None, float | None]
    drift: float


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two runs that differ in nothing but the gradient.

    Attributes:
        epochs: Both runs, epoch by epoch.
        leaves: [0].kernel, [0].bias, [1].kernel, ..., which are W^1, b^1, W^2, ...: the columns of `drift`.
        drift: After every step, how far the parameters lie apart: |p_manual - p_auto| / |p_auto|, a leaf a column.
        step_seconds: The mean time of a step, manual and auto, in each of TURNS turns after the training; see
            `step_times`.
    """

    epochs: tuple[Pair, ...]
    leaves: tuple[str, ...]
    drift: Float[np.ndarray, "steps leaves"]
    step_seconds: Float[np.ndarray, "turns 2"]


Both: TypeAlias = tuple[TrainState, TrainState]


@partial(Program, static_argnames="recipe")
def drift_of_epoch(
    manual: TrainState,
    auto: TrainState,
    batches: Examples,
    part: Part,
    *,
    recipe: Recipe,
) -> Float[Array, "steps leaves"]:
    """Both trained through an epoch in lockstep: the distance of their parameters after every step."""
    steps, shape = (make_step(recipe), make_step(replace(recipe, gradient="auto"))), batches.inputs.shape[:2]
    every = recipe.turned(shape[1])

    def both(states: Both, at: tuple[Examples, Array, Array]) -> tuple[Both, Array]:
        examples, weights, number = at
        key = key_of(part.seed, number) if recipe.draws else None
        batch = converted(examples, weights)
        states = steps[0](states[0], batch, key)[0], steps[1](states[1], batch, key)[0]
        ours, theirs = jax.tree.leaves(flip(states[0].params, every)), jax.tree.leaves(flip(states[1].params))
        apart = [distance(p, q) for p, q in zip(ours, theirs, strict=True)]
        return states, jnp.stack(apart)

    numbers = part.number + jnp.arange(shape[0], dtype=jnp.uint32)
    begun = flip(manual, every), flip(auto)
    _, drift = jax.lax.scan(both, begun, (batches, fill_weights(part.total, shape), numbers))
    return drift


def distance(p: Float[Array, "*shape"], q: Float[Array, "*shape"]) -> Float[Array, ""]:
    """|p - q| / |q|; 1 where q alone is 0, and 0 where both are, as biases are at the start."""
    apart, size = jnp.linalg.norm((p - q).ravel()), jnp.linalg.norm(q.ravel())
    return jnp.where(apart == 0, 0, apart / jnp.where(size == 0, apart, size))


TURNS, STEPS = 15, 200


def step_times(
    manual: TrainState,
    auto: TrainState,
    batches: Examples,
    count: int,
    *,
    recipe: Recipe,
) -> Float[np.ndarray, "turns 2"]:
    """The mean time of a step in seconds, of each in turn, TURNS times: so many, however few epochs there were.

    A turn trains through `batches`. One turn more comes before them, untimed, and holds the compilation. The two take
    turns so that a slower minute of the machine slows both, and their ratio is to be taken turn by turn.
    """
    steps, seconds = batches.inputs.shape[0], []
    for _ in range(1 + TURNS):
        state: TrainState
        gradient: Literal["manual", "auto"]
        for gradient, state in (("manual", manual), ("auto", auto)):
            begun = time.perf_counter()
            trained = train_epoch(state, batches, count, recipe=replace(recipe, gradient=gradient))
            trained.losses.block_until_ready()
            seconds.append((time.perf_counter() - begun) / steps)
    return np.reshape(seconds, (-1, 2))[1:]


def compare(
    experiment: Experiment, dataset: Dataset | None = None, *, report: Callable[[Pair], None] = ignore
) -> Comparison:
    """Trains the experiment with both gradients, an epoch of each in turn, from the same start on the same batches.

    Then it times them. The data set is by default what `experiment.data.source` names.

    Raises:
        DataError: for a validation split that leaves nothing to train on.
        ExperimentError: for a network whose sizes don't fit the data, or a private experiment.
        DivergedError: where a loss or a parameter is not a number any more.
    """
    refuse_no_experiment(experiment)
    if experiment.privacy.epsilon is not None:
        raise ExperimentError(
            f"privacy.epsilon is {experiment.privacy.epsilon:g}, but the automatic gradient can't train privately: "
            "expected None to compare, as by --privacy.epsilon None"
        )
    dataset, held_out, *_ = divided(experiment, dataset)
    network, train, count = experiment.network, experiment.train, dataset.train.size
    recipe = Recipe.of(experiment, dataset.shape, math.ceil(count / min(train.batch_size, count)))
    recipe = replace(recipe, gradient="manual")
    examples, validation = on_device(dataset.train), portions(held_out)
    states = {"manual": initial_state(experiment), "auto": initial_state(experiment)}

    mean = sound_mean if experiment.optimizer.nonfinite == "skip" else mean_loss
    pairs, drifts = [], []
    for epoch in range(1, train.epochs + 1):
        order = order_of(train.seed, epoch, count, min(train.batch_size, count))
        batches = in_order(examples, jax.device_put(order))
        part = Part.of(0, len(order), train.seed, len(order) * (epoch - 1), count)
        drift = drift_of_epoch(**states, batches=batches, part=part, recipe=recipe)
        drifts.append(jax.device_get(drift))
        losses, accuracies = [], []
        for gradient in ("manual", "auto"):
            states[gradient], found, _ = train_epoch(
                states[gradient],
                batches,
                count,
                recipe=replace(recipe, gradient=gradient),
                seed=train.seed,
                epoch=epoch,
            )
            losses.append(mean(jax.device_get(found), count, order.shape[1]))
            params = states[gradient].params
            accuracies.append(evaluate(params, validation, network=network)[1] if validation else None)
        refuse_divergence(experiment, epoch, manual=losses[0], automatic=losses[1])
        if not np.isfinite(drifts[-1]).all():
            what = "parameters are not finite, or too large for their norms to be"
            raise diverged(experiment, f"epoch {epoch}", what)
        pairs.append(
            Pair(
                epoch=epoch,
                train_loss=(losses[0], losses[1]),
                validation_accuracy=(accuracies[0], accuracies[1]),
                drift=float(drifts[-1][-1].max()),
            )
        )
        report(pairs[-1])
        del batches  # before the next epoch's
    leaves = tuple(jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(states["auto"].params))
    batches = in_order(examples, jax.device_put(order[:STEPS]))
    seconds = step_times(**states, batches=batches, count=count, recipe=recipe)
    return Comparison(tuple(pairs), leaves, np.concatenate(drifts), seconds)
