"""Recording while training: the compiled epoch that measures as it goes, and what is kept of it."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int

from jaxmlp.backprop import backpropagate, decayed, mean_gradient
from jaxmlp.data.dataset import Examples
from jaxmlp.network import Params, weighted_mean
from jaxmlp.training.batches import fill_weights, gather
from jaxmlp.training.config import Record
from jaxmlp.training.epoch import Part, Recipe, TrainState, flip, key_of, prepared, updated
from jaxmlp.training.instruments import OF_EXAMPLES, Step, measure, slopes
from jaxmlp.training.program import Program


@partial(
    Program,
    small=lambda state, start, examples, order, part, *, recipe, record: recipe.small(order.shape[1], traced=True),
    static_argnames=("recipe", "record"),
    donate_argnames="state",
)
def record_epoch(
    state: TrainState,
    start: Params,
    examples: Examples,
    order: Int[Array, "steps batch_size"],
    part: Part,
    *,
    recipe: Recipe,
    record: Record,
) -> tuple[TrainState, Float[Array, ""], dict[str, Array]]:
    """`train_epoch` with the hand-derived gradient, and every recorded quantity with an axis of steps in front.

    The steps are the first and every `record.every`-th after it. `start` are the parameters that the run started from.
    All that a step records is one array in the loop: a kernel each to keep it took a fifth of the time.
    Gradients are those of the examples' costs, with the dropout of the step; the weights' penalty is no part of them.
    """
    count, steps = examples.inputs.shape[0], order.shape[0]
    flipped_start, network, every = flip(start), recipe.network, min(record.every, steps)
    apart: Any = None  # takes apart what a step records: a function of its shapes, known once the loop is traced

    def step(state: TrainState, at: tuple[Array, Array, Array, Array]) -> tuple[TrainState, tuple[Array, Array]]:
        indices, weights, due, number = at
        key = key_of(part.seed, number) if recipe.draws else None
        batch, dropping = prepared(gather(examples, indices, weights), key, recipe)
        params = flip(state.params)
        trace = backpropagate(params, batch, network, dropping)
        gradient = flip(mean_gradient(trace))
        after = updated(state, decayed(gradient, state.params, network), recipe)

        def recorded() -> Array:
            nonlocal apart
            f = slopes(params, batch, network, dropping)
            known = Step(trace, gradient, state.params, after.params, flipped_start, f)
            joined, apart = ravel_pytree(measure(known, record.quantities))
            return joined

        found = recorded() if every == 1 else jax.lax.cond(due, recorded, partial(blank, recorded))
        cost = weighted_mean(trace.losses, trace.weights)
        return after, (cost * jnp.sum(weights), found)

    due = jnp.arange(steps) % every == 0
    numbers = part.number + jnp.arange(steps, dtype=jnp.uint32)
    state, (costs, found) = jax.lax.scan(step, flip(state), (order, fill_weights(count, order.shape), due, numbers))
    kept: dict[str, Array] = jax.vmap(apart)(found[::every])
    return flip(state), jnp.sum(costs) / count, kept


def blank(function: Callable[[], Array]) -> Array:
    """What the function returns, with 0 in place of every number."""
    like = jax.eval_shape(function)
    return jnp.zeros(like.shape, like.dtype)


Recording: TypeAlias = dict[str, np.ndarray]
"""An epoch's, by name: what `record_epoch` gives, an axis of steps in front; but see `by_example`."""

QUANTILES = (0.5, 0.9, 0.99, 1.0)


def by_example(found: Recording, order: Int[np.ndarray, "steps batch_size"], count: int, every: int) -> Recording:
    """The same with the quantities of examples in the order of the training examples, (N,).

    NaN for those that no recorded step met.
    """
    there = (np.arange(order.size) < count).reshape(order.shape)[::every]
    met, ordered = order[::every][there], dict(found)
    for name in OF_EXAMPLES:
        if name in found:
            ordered[name] = np.full(count, np.nan, found[name].dtype)
            ordered[name][met] = found[name][there]
    return ordered


def summary(recording: Recording) -> dict[str, Any]:
    """An epoch's recording in short, for its line of metrics.jsonl: numbers, and lists of a number a layer.

    Each is the mean over the recorded steps, those left out where it is not finite; None where none is. Of the noise
    scale, tr Sigma and |G|^2 are averaged each, before their ratio, which is None where |G|^2 is lost in its own
    noise. A histogram is the sum; of quantities of examples there are quantiles: the median, 90, 99 and 100 %.
    """
    short: dict[str, Any] = {}
    for name, values in recording.items():
        if name in OF_EXAMPLES:
            met = values[np.isfinite(values)]
            short[name] = np.quantile(met, QUANTILES).tolist() if met.size else None
        elif name == "gradient_histogram":
            short[name] = values.sum(axis=0, dtype=np.float64).astype(int).tolist()
        elif name == "noise_scale":
            variance, square = mean(values)
            scale = variance / square if variance is not None and square is not None and square > 0 else None
            short |= {"total_variance": variance, "squared_gradient": square, "noise_scale": scale}
        else:
            short[name] = mean(values)
    return short


def mean(values: Float[np.ndarray, "steps ..."]) -> Any:
    """`finite_mean` as JSON has it: a number or a list, None where there is none."""
    means = finite_mean(values)
    found = [float(one) if np.isfinite(one) else None for one in means.ravel()]
    return found if values.ndim > 1 else found[0]


def finite_mean(values: Float[np.ndarray, "steps ..."]) -> Float[np.ndarray, "..."]:
    """The mean over the steps, in float64, of those values that are finite; NaN where none is."""
    finite = np.isfinite(values)
    met = finite.sum(axis=0)
    total = np.where(finite, values, 0).sum(axis=0, dtype=np.float64)
    return np.where(met > 0, total / np.maximum(met, 1), np.nan)
