"""Private training, DP-SGD (Abadi 2016, arXiv 1607.00133, algorithm 1): what is drawn, clipped, blurred and spent.

A step draws every example with probability q = B / N on its own, B being `train.batch_size` and N the number of
training examples, and goes along

    (sum_i min(1, C / |g_i|) g_i + C sigma n) / B          n standard normal, one number a parameter

where the sum is of the examples drawn, and B their expected number: how many there were stays unsaid. The noise sigma
is calibrated so that the whole run spends `privacy.epsilon` at most. The accounting is dp-accounting's, not ours.

Guaranteed: the parameters after every epoch, all of them together, are (epsilon, delta)-differentially private. Of two
training sets, one of which has one example more than the other (add or remove one), neither makes any set of outcomes
more probable than e^epsilon times what the other makes it, plus delta. Public are N, the settings, and the network.

Not covered:
- everything else that a run shows: the losses, what is recorded while training, and whatever is chosen by looking at
  validation examples, which are protected by nothing; nor a choice among several private runs, each of which spends;
- the seed: who knows it, or tries all 2^32, can draw the batches and the noise again, and config.json holds it;
- arithmetic: norms are rounded, and the noise is made of float32 numbers of JAX's generator, none beyond some 10.8
  standard deviations. That is no defence against an attack on the noise's last bits (Mironov 2012).
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, UInt32

from jaxmlp.backprop import Trace, backpropagate, decayed
from jaxmlp.data.dataset import Examples
from jaxmlp.errors import ExperimentError
from jaxmlp.network import Params
from jaxmlp.perexample import clipped_sum
from jaxmlp.training.batches import gather
from jaxmlp.training.config import Experiment
from jaxmlp.training.epoch import Recipe, TrainState, flip, key_of, prepared, updated
from jaxmlp.training.program import Program


def accounting() -> Any:
    """The package dp-accounting, imported when it is first needed, since that takes a second or two.

    Raises:
        ExperimentError: where it is not installed.
    """
    try:
        import dp_accounting
    except ImportError as error:
        raise ExperimentError(
            f"privacy.epsilon needs the package dp-accounting ({error}): pip install dp-accounting"
        ) from error
    return dp_accounting


@dataclass(frozen=True)
class Steps:
    """Private steps to account for: each draws examples with probability q, and adds noise sigma to clipped gradients.

    The accountant composes privacy loss distributions (Koskela 2020, arXiv 1906.03049) for the relation "add or remove
    one example", on a grid. Whatever the grid, what it says is an upper bound; it is as fine as `grid`.
    """

    q: float
    sigma: float
    delta: float
    grid: float = 1e-4

    def spent(self, steps: int) -> float:
        """The epsilon of so many steps.

        >>> round(Steps(q=0.01, sigma=4.0, delta=1e-5).spent(10_000), 2)  # 1.26 by Abadi's moments accountant
        0.95
        """
        return float(self.accountant().compose(self.event(steps)).get_epsilon(self.delta))

    def accountant(self) -> Any:
        dp = accounting()
        return dp.pld.PLDAccountant(dp.NeighboringRelation.ADD_OR_REMOVE_ONE, self.grid)

    def event(self, steps: int) -> Any:
        dp = accounting()
        return dp.SelfComposedDpEvent(dp.PoissonSampledDpEvent(self.q, dp.GaussianDpEvent(self.sigma)), steps)


LARGEST, FINEST = 2.0**20, 1e-7
"""The largest noise and the finest grid that are tried."""


def calibrate(epsilon: float, delta: float, q: float, steps: int) -> Steps:
    """The steps with the least noise, to a hundred thousandth, of which so many spend `epsilon` at most.

    Raises:
        ExperimentError: where no noise is enough.

    >>> round(calibrate(epsilon=2.0, delta=1e-5, q=0.01, steps=10_000).sigma, 2)
    2.13
    """

    def with_noise(sigma: float) -> Steps:
        return Steps(q, sigma, delta, grid=max(epsilon / 4000, FINEST))

    def enough(sigma: float) -> bool:
        return with_noise(sigma).spent(steps) <= epsilon

    if not enough(LARGEST):
        raise ExperimentError(
            f"privacy.epsilon is {epsilon:g}: no noise is enough for {steps:,} steps at privacy.delta {delta:g}: "
            "expected a larger epsilon or delta, or fewer steps"
        )
    upper = LARGEST
    while enough(upper / 2):  # from above, as the accounting of far too little noise takes memory without end
        upper /= 2
    dp = accounting()
    sigma: float = dp.calibrate_dp_mechanism(
        with_noise(upper).accountant,
        lambda sigma: with_noise(sigma).event(steps),
        epsilon,
        delta,
        dp.ExplicitBracketInterval(upper / 2, upper),
        tol=upper * 1e-5,
    )
    return with_noise(sigma)


class Drawn(NamedTuple):
    """Batches by Poisson sampling: rows of `capacity` places, of which an example takes each at weight 1.

    Attributes:
        indices: The examples, by rising index; the rest of a row is filled up with index 0.
        weights: 1 for an example, 0 for the fill.
    """

    indices: Int[np.ndarray, "steps capacity"]
    weights: Float[np.ndarray, "steps capacity"]


def capacity(count: int, batch_size: int) -> int:
    """Places for a batch of B expected examples of N: more are drawn with a probability below 1e-20 a step.

    By Bernstein's inequality, P[|batch| >= B + t] <= exp(-t^2 / (2 (B (1 - B/N) + t/3))), solved for t.

    >>> capacity(60_000, 2048), capacity(60_000, 32), capacity(100, 100)
    (2491, 104, 100)
    """
    Lambda = 20 * math.log(10)
    t = Lambda / 3 + math.sqrt((Lambda / 3) ** 2 + 2 * batch_size * (1 - batch_size / count) * Lambda)
    return min(count, math.ceil(batch_size + t))


def draw(seed: int, epoch: int, count: int, batch_size: int) -> Drawn:
    """Epoch `epoch`'s batches, N / B of them: each of the `count` examples enters each with probability B / N.

    A function of its arguments alone, as `order_of`. How many enter a batch is binomial, and which do is any subset of
    that size alike, which is the same as asking each example on its own. A number beyond `capacity` is cut down to it:
    that alters what is drawn with a probability below 1e-20 a step, which adds (1 + e^epsilon) 1e-20 to a run's delta
    for every step, and not a word of it ever depends on an example that isn't drawn.

    >>> indices, weights = draw(seed=0, epoch=1, count=5, batch_size=2)
    >>> indices.shape, weights.sum(axis=1).tolist()
    ((2, 5), [3.0, 2.0])
    """
    rng, places = np.random.default_rng([seed, epoch]), capacity(count, batch_size)
    sizes = np.minimum(rng.binomial(count, batch_size / count, steps_of_epoch(count, batch_size)), places)
    indices = np.zeros((sizes.size, places), np.int32)
    for row, size in zip(indices, sizes, strict=True):
        row[:size] = np.sort(rng.choice(count, size, replace=False, shuffle=False))
    return Drawn(indices, (np.arange(places) < sizes[:, None]).astype(np.float32))


def steps_of_epoch(count: int, batch_size: int) -> int:
    """How many batches of B expected examples go through N of them: N / B, rounded, and at least 1."""
    return max(1, round(count / batch_size))


def noise_key(seed: UInt32[Array, ""], step: UInt32[Array, ""]) -> Key[Array, ""]:
    """The key of a step's noise, counted from 0 through the whole run: used for that step and for nothing else.

    The middle key is one that `init` has no use for: folding `step` into the seed's own key would give the keys of the
    initial kernels again.
    """
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 2**32 - 1), step)


def private_gradient(
    trace: Trace, key: Key[Array, ""], clip: Float[Array, ""], sigma: Float[Array, ""], batch_size: Float[Array, ""]
) -> Params:
    """(sum_i w_i min(1, C / |g_i|) g_i + C sigma n) / B, with C `clip`, B `batch_size`, and n standard normal by `key`.

    With weights of 0 and 1, adding an example moves the sum by C at most, whatever numbers it is of: one that makes
    anything not finite counts as 0.
    """
    leaves, structure = jax.tree.flatten(clipped_sum(finite_ones(trace), clip))
    keys = jax.random.split(key, len(leaves))

    def blurred(leaf: Array, key: Array) -> Array:
        # a float32 normal ends at 5.4 standard deviations, which a delta of 1e-5 feels; half the sum of four at 10.8
        noise = jnp.sum(jax.random.normal(key, (4, *leaf.shape), leaf.dtype), axis=0) / 2
        return (leaf + (clip * sigma).astype(leaf.dtype) * noise) / batch_size.astype(leaf.dtype)

    gradient: Params = jax.tree.unflatten(structure, map(blurred, leaves, keys))
    return gradient


def finite_ones(trace: Trace) -> Trace:
    """The trace with the inputs and deltas of examples for which any of them is not finite set to 0."""
    rows = [jnp.all(jnp.isfinite(X), axis=1) for X in (*trace.inputs, *trace.deltas)]
    finite = jnp.all(jnp.stack(rows), axis=0)[:, None]

    def kept(matrices: tuple[Array, ...]) -> tuple[Array, ...]:
        return tuple(jnp.where(finite, X, 0) for X in matrices)

    return trace._replace(inputs=kept(trace.inputs), deltas=kept(trace.deltas))


class Amounts(NamedTuple):
    """The numbers of a private step, as arrays, so that another epsilon needs no other program.

    Attributes:
        first: The number of the epoch's first step, from 0.
    """

    seed: UInt32[Array, ""]
    first: UInt32[Array, ""]
    clip: Float[Array, ""]
    sigma: Float[Array, ""]
    batch_size: Float[Array, ""]


@partial(Program, static_argnames="recipe", donate_argnames="state")
def train_private_epoch(
    state: TrainState,
    examples: Examples,
    indices: Int[Array, "steps capacity"],
    weights: Float[Array, "steps capacity"],
    amounts: Amounts,
    *,
    recipe: Recipe,
) -> tuple[TrainState, Float[Array, ""]]:
    """One step of `optimizer` along the private gradient a row: the new state, and the mean loss of the examples drawn.

    That is not private itself. Losses that are not below 1e30 are left out of it, so that no single example can end a
    run as diverged; NaN where none is left. `state` is donated, and flipped meanwhile.
    """

    def step(state: TrainState, at: tuple[Array, Array, Array]) -> tuple[TrainState, tuple[Array, Array]]:
        rows, mask, number = at
        drawing = key_of(amounts.seed, number) if recipe.draws else None
        batch, dropping = prepared(gather(examples, rows, mask), drawing, recipe)
        params = flip(state.params)
        trace = backpropagate(params, batch, recipe.network, dropping)
        key = noise_key(amounts.seed, number)
        gradient = private_gradient(trace, key, amounts.clip, amounts.sigma, amounts.batch_size)
        after = updated(state, flip(decayed(gradient, params, recipe.network)), recipe)
        sound = jnp.where(jnp.abs(trace.losses) < 1e30, mask, 0)
        return after, (jnp.sum(jnp.where(sound > 0, trace.losses, 0)), jnp.sum(sound))

    numbers = amounts.first + jnp.arange(indices.shape[0], dtype=jnp.uint32)
    state, (costs, counted) = jax.lax.scan(step, flip(state), (indices, weights, numbers))
    return flip(state), jnp.sum(costs) / jnp.sum(counted)


@dataclass(frozen=True)
class PrivateTraining:
    """An experiment's private epochs. Make one with `PrivateTraining.of`."""

    experiment: Experiment
    count: int
    batch_size: int
    steps: Steps

    @staticmethod
    def of(experiment: Experiment, count: int) -> "PrivateTraining | None":
        """The private training of an experiment on `count` examples; None for one that is not private.

        Raises:
            ExperimentError: without dp-accounting, for a delta of 1 / count or more, or where no noise is enough.
        """
        train, privacy, B = experiment.train, experiment.privacy, min(experiment.train.batch_size, count)
        if privacy.epsilon is None:
            return None
        if privacy.delta * count >= 1 and count > 1:
            raise ExperimentError(
                f"privacy.delta is {privacy.delta:g}, with {count:,} training examples: expected far less than 1 / "
                f"{count:,}, as such a delta would let one of them be told whole"
            )
        steps = train.epochs * steps_of_epoch(count, B)
        return PrivateTraining(experiment, count, B, calibrate(privacy.epsilon, privacy.delta, B / count, steps))

    def spent(self, epoch: int) -> float:
        """The epsilon of all epochs up to this one."""
        return self.steps.spent(epoch * steps_of_epoch(self.count, self.batch_size))

    def epoch(
        self, state: TrainState, examples: Examples, epoch: int, recipe: Recipe
    ) -> tuple[TrainState, Float[Array, ""]]:
        """Trains epoch `epoch`, counted from 1."""
        seed, first = self.experiment.train.seed, (epoch - 1) * steps_of_epoch(self.count, self.batch_size)
        integers = np.uint32(seed), np.uint32(first)
        floats = np.float32(self.experiment.privacy.clip), np.float32(self.steps.sigma), np.float32(self.batch_size)
        drawn = draw(seed, epoch, self.count, self.batch_size)
        trained: tuple[TrainState, Array] = train_private_epoch(
            state,
            examples,
            *jax.device_put(drawn),
            Amounts(*jax.device_put((*integers, *floats))),
            recipe=recipe,
        )
        return trained
