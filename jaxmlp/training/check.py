"""The check of an experiment's hand-derived gradient, on its own network, data and batches."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxmlp.backprop import value_and_backprop
from jaxmlp.data.dataset import Dataset, on_device
from jaxmlp.gradcheck.check import GradientCheck
from jaxmlp.gradcheck.report import GradientReport
from jaxmlp.network import Params, loss
from jaxmlp.training.batches import fill_weights, gather, in_order, order_of
from jaxmlp.training.config import Experiment, refuse_no_experiment
from jaxmlp.training.epoch import Recipe, initial_state, key_of, prepared, train_epoch
from jaxmlp.training.fit import divided, ignore

Tree = TypeVar("Tree")


@dataclass(frozen=True)
class Checked:
    """One check of an experiment.

    Attributes:
        when: `at initialisation` or `after an epoch`.
        report: What the check found.
    """

    when: str
    report: GradientReport


CHECKED = 1024
"""Examples of a batch that are checked, at most. The check takes hundreds of gradients of them."""


def check_experiment(
    experiment: Experiment,
    dataset: Dataset | None = None,
    *,
    starting: Callable[[str], None] = ignore,
    report: Callable[[Checked], None] = ignore,
) -> tuple[Checked, ...]:
    """Checks `jaxmlp.backprop` where the experiment uses it: four reports.

    In float32 and in float64; at the initial parameters, on the first batch of the first epoch, and after that epoch's
    training, on its last batch, whose fill is masked by weights of 0. Where batches have more than CHECKED examples,
    the check cuts the epoch into batches of so many, and takes the first and the last of those. Of a private experiment
    too it is the plain gradient that is checked, and the epoch is trained without clipping and noise.

    Args:
        experiment: whose network, data and batches the gradient is checked on.
        dataset: what to train on; by default what `experiment.data.source` names.
        starting: is called with what is about to be done, such as "checking at initialisation, float32".
        report: is called with each check.

    Raises:
        DataError: for a validation split that leaves nothing to train on.
        ExperimentError: for a network whose sizes don't fit the data.
    """
    refuse_no_experiment(experiment)
    dataset = divided(experiment, dataset).dataset
    train, count = experiment.train, dataset.train.size
    examples = on_device(dataset.train)
    order, rows = (
        jax.device_put(order_of(train.seed, 1, count, min(size, count)))
        for size in (train.batch_size, min(train.batch_size, CHECKED))
    )
    recipe, state = Recipe.of(experiment, dataset.shape, len(order)), initial_state(experiment)
    seed, number = jax.device_put((np.uint32(train.seed), np.uint32(0)))
    check = GradientCheck(loss, value_and_backprop)
    done: list[Checked] = []

    def check_both(when: str, params: Params, row: int) -> None:
        drawing = key_of(seed, number) if recipe.draws else None
        batch = gather(examples, rows[row], fill_weights(count, rows.shape)[row])
        batch, key = prepared(batch, drawing, recipe)
        for dtype in (jnp.float32, jnp.float64):
            starting(f"checking {when}, {jnp.dtype(dtype).name}")
            with jax.enable_x64(dtype == jnp.float64):
                done.append(
                    Checked(when, check(as_type(params, dtype), as_type(batch, dtype), experiment.network, key))
                )
            report(done[-1])

    check_both("at initialisation", state.params, 0)
    starting("training an epoch")
    state, _, _ = train_epoch(state, in_order(examples, order), count, recipe=recipe, seed=train.seed)
    check_both("after an epoch", state.params, -1)
    return tuple(done)


def as_type(tree: Tree, dtype: DTypeLike) -> Tree:
    """The arrays of a tree in that floating type; whole numbers, such as labels, stay as they are."""
    cast: Tree = jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)
    return cast
