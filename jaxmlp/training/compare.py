"""The hand-derived and the automatic gradient side by side: one experiment, trained with both from the same start."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from jaxmlp.data.dataset import Dataset, Examples, on_device, split
from jaxmlp.network import Network
from jaxmlp.training.config import Experiment
from jaxmlp.training.epoch import TrainState, flip, make_step, masks, order_of, train_epoch
from jaxmlp.training.fit import check_fit, ignore, initial_state, refuse_divergence, scores
from jaxmlp.training.optimizers import make


@dataclass(frozen=True)
class Pair:
    """An epoch of both."""

    epoch: int
    train_loss: tuple[float, float]
    """Manual, auto; and so below."""
    validation_accuracy: tuple[float | None, float | None]
    step_seconds: tuple[float, float]
    """Mean time of a step of this epoch; the first epoch's include compilation."""
    drift: float
    """The largest leaf's drift at the epoch's end."""


@dataclass(frozen=True)
class Comparison:
    """Two runs that differ in nothing but the gradient."""

    epochs: tuple[Pair, ...]
    leaves: tuple[str, ...]
    """kernel_1, bias_1, kernel_2, ...: the columns of `drift`."""
    drift: Float[np.ndarray, "steps leaves"]
    """After every step, how far the parameters lie apart: |p_manual - p_auto| / |p_auto|, a leaf a column."""

    @property
    def step_seconds(self) -> tuple[float, float]:
        """The median over the epochs after the first, which holds the compilation, where there are others."""
        epochs = self.epochs[1:] or self.epochs
        manual, auto = zip(*(pair.step_seconds for pair in epochs), strict=True)
        return statistics.median(manual), statistics.median(auto)


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


def compare(experiment: Experiment, dataset: Dataset, *, report: Callable[[Pair], None] = ignore) -> Comparison:
    """Trains the experiment with both gradients, an epoch of each in turn, from the same start on the same batches.

    Raises:
        DataError: for a validation split that leaves nothing to train on.
        ExperimentError: for a network whose sizes don't fit the data.
        DivergedError: where a loss is not a number any more.
    """
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
        losses, accuracies, seconds = [], [], []
        for gradient in ("manual", "auto"):
            begun = time.perf_counter()
            states[gradient], cost = train_epoch(
                states[gradient], examples, order, network=network, optimizer=optimizer, gradient=gradient
            )
            losses.append(float(jax.device_get(cost)))
            seconds.append((time.perf_counter() - begun) / order.shape[0])
            accuracies.append(scores(states[gradient].params, validation, experiment)[1] if held_out.size else None)
        refuse_divergence(experiment, epoch, manual=losses[0], automatic=losses[1])
        pairs.append(
            Pair(
                epoch=epoch,
                train_loss=(losses[0], losses[1]),
                validation_accuracy=(accuracies[0], accuracies[1]),
                step_seconds=(seconds[0], seconds[1]),
                drift=float(drifts[-1][-1].max()),
            )
        )
        report(pairs[-1])
    layers = range(1, len(network.sizes))
    leaves = tuple(f"{name}_{l}" for l in layers for name in ("kernel", "bias"))
    return Comparison(tuple(pairs), leaves, np.concatenate(drifts))
