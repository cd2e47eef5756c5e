"""A comparison of the two gradients, for the terminal."""

import numpy as np
from rich.table import Table

from jaxmlp.training.compare import Comparison, Pair


def describe_pair(pair: Pair, epochs: int) -> str:
    """An epoch of both in a line.

    >>> describe_pair(Pair(2, (0.5, 0.5), (0.9, 0.9), 1.5e-6), epochs=10)
    'epoch  2/10  loss 0.500000 and 0.500000  drift 1.5e-06'
    """
    manual, auto = pair.train_loss
    epoch = f"epoch {pair.epoch:{len(str(epochs))}}/{epochs}"
    return f"{epoch}  loss {manual:.6f} and {auto:.6f}  drift {pair.drift:.1e}"


def comparison_table(comparison: Comparison) -> Table:
    """Where the two ended, how far apart their parameters lie, and what a step of each takes."""
    last, seconds = comparison.epochs[-1], comparison.step_seconds
    table = Table("", "manual", "auto", "difference")
    loss = last.train_loss
    table.add_row("training loss", f"{loss[0]:.6f}", f"{loss[1]:.6f}", f"{loss[0] - loss[1]:+.1e}")
    ours, theirs = last.validation_accuracy
    if ours is not None and theirs is not None:
        difference = f"{100 * (ours - theirs):+.2f} points"
        table.add_row("validation accuracy", f"{100 * ours:.2f} %", f"{100 * theirs:.2f} %", difference)
    times = (f"{1e6 * median:.1f} us" for median in np.median(seconds, axis=0))
    low, ratio, high = np.quantile(seconds[:, 1] / seconds[:, 0], (0.25, 0.5, 0.75))
    table.add_row("time of a step", *times, f"auto / manual {ratio:.2f} ({low:.2f} to {high:.2f})")
    for name, column in zip(comparison.leaves, comparison.drift.T, strict=True):
        table.add_row(f"drift of {name}", "", "", f"{column[0]:.1e} to {column[-1]:.1e}")
    table.caption = (
        f"time of a step: the median of {len(seconds)} turns after the training\n"
        "ratio: of the two times in each turn, the median and the quartiles\n"
        f"drift: |p manual - p auto| / |p auto|, from step 1 to step {len(comparison.drift):,}"
    )
    return table
