"""The optimizer that an experiment names; optax does the work."""

from functools import cache

import optax

from jaxmlp.training.config import Optimizer

EVERY_TIME = 2**31 - 1
"""So many updates in a row that are not finite are left out."""
MAKERS = {"sgd": optax.sgd, "adam": optax.adam}


@cache
def make(optimizer: Optimizer) -> optax.GradientTransformation:
    """The optimizer as a pair of pure functions. Equal settings give the same object, lest a program compile twice.

    >>> make(Optimizer("sgd", learning_rate=0.5)) is make(Optimizer("sgd", learning_rate=0.5))
    True
    """
    made = MAKERS[optimizer.name](optimizer.learning_rate)
    return optax.apply_if_finite(made, EVERY_TIME) if optimizer.nonfinite == "skip" else made
