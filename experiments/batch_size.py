"""How accuracy and speed trade off against the batch size: the lesson's network, from one example to all.

    jaxmlp sweep experiments/batch_size.py

Source: 3Blue1Brown, "Gradient descent, how neural networks learn" and "What is backpropagation really doing?" (2017):
mini-batches give up some of the gradient's accuracy for speed.
Expected: after 8 epochs 1 to 100 examples a step do alike (5.7 to 6.0 % of the validation images wrong) and all of them
at once have learned next to nothing; after 2 s 100 to 1,000 are best (5.1 and 5.3 %); in about 240 s on 2 CPU cores.
Each batch size has several learning rates; drawn is the one that did best on the validation examples, in the mean over
the seeds, at equal examples and at equal time apart. Times are of training alone, without compilation. With
`--train.epochs 4` all runs are half as long.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from jaxmlp import Experiment, ExperimentError, Network, Run, Train

SECONDS = 2.0
"""Of equal time."""
PLAN = {
    1: (1.0, (0.01, 0.03, 0.1)),
    10: (2.5, (0.1, 0.3, 1.0)),
    100: (6.25, (0.3, 1.0, 3.0)),
    1_000: (7.5, (1.0, 3.0, 6.0)),
    10_000: (7.5, (1.0, 3.0, 6.0)),
    55_000: (7.5, (1.0, 3.0, 6.0)),
}
"""Of each batch size: how many times the epochs of equal examples, so that there are enough for equal time too; and
learning rates. The last is all of MNIST's examples but the 5,000 held out; with fewer `data.examples`, as many."""


def experiment() -> Experiment:
    """The lesson's 784-16-16-10."""
    return Experiment(
        network=Network(sizes=(784, 16, 16, 10), activation="sigmoid", output="sigmoid", loss="squared_error"),
        train=Train(epochs=8),
    )


def sweep(experiment: Experiment) -> list[Experiment]:
    """3 seeds of each batch size with each of its learning rates."""
    if experiment.data.validation == 0:
        raise ExperimentError("data.validation is 0: expected examples by which to choose the learning rates")
    most = min(experiment.data.examples or max(PLAN), max(PLAN))
    plan = {size: PLAN[size] for size in PLAN if size < most} | {most: PLAN[max(PLAN)]}
    return [
        replace(
            experiment,
            optimizer=replace(experiment.optimizer, learning_rate=rate),
            train=replace(
                experiment.train, epochs=math.ceil(more * experiment.train.epochs), batch_size=batch_size, seed=seed
            ),
        )
        for batch_size, (more, rates) in plan.items()
        for rate in rates
        for seed in range(3)
    ]


def error(run: Run, epochs: float) -> float:
    """The validation error, in per cent, after so many epochs at most; of none, that of guessing."""
    reached = [record.validation_accuracy for record in run.history if record.epoch <= epochs]
    return 100 * (1 - reached[-1]) if reached else 90.0


def epoch_seconds(runs: Sequence[Run]) -> float:
    """The median time of an epoch; the first holds the compilation."""
    return statistics.median(record.seconds for run in runs for record in run.history[1:] or run.history)


def best(runs: Sequence[Run], epochs: float) -> tuple[float, float]:
    """The mean and the standard deviation over seeds, with the learning rate whose mean is lowest.

    A rate at which a seed has diverged is none to choose.
    """
    found: dict[float, list[float]] = {}
    for run in runs:
        found.setdefault(run.experiment.optimizer.learning_rate, []).append(error(run, epochs))
    most = max(map(len, found.values()))
    chosen = min((errors for errors in found.values() if len(errors) == most), key=statistics.mean)
    return statistics.mean(chosen), statistics.pstdev(chosen)


def figure(runs: Sequence[Run]) -> Figure:
    """The error at equal examples and at equal time, and the time of an epoch, against the batch size."""
    sizes = sorted({run.experiment.train.batch_size for run in runs})
    groups = [[run for run in runs if run.experiment.train.batch_size == size] for size in sizes]
    seconds = [epoch_seconds(group) for group in groups]
    lasted = [each * group[0].experiment.train.epochs for each, group in zip(seconds, groups, strict=True)]
    time = min(SECONDS, *lasted)  # a faster machine is through with all epochs sooner
    equal = min(run.experiment.train.epochs for run in runs)
    drawing = Figure(figsize=(11, 3.8), layout="constrained")
    left, right = drawing.subplots(1, 2)
    for label, epochs in (
        (f"after {equal} epoch{'s' * (equal > 1)}", [float(equal)] * len(sizes)),
        (f"after {time:.2g} s", [time / each for each in seconds]),
    ):
        mean, deviation = np.transpose([best(group, most) for group, most in zip(groups, epochs, strict=True)])
        left.errorbar(sizes, mean, deviation, marker="o", capsize=3, label=label)
    left.set(
        xscale="log", xlabel="examples a step", ylabel="validation error, %", title="What is reached", yscale="log"
    )
    left.legend()
    right.plot(sizes, seconds, marker="o")
    right.set(xscale="log", yscale="log", xlabel="examples a step", ylabel="seconds", title="Time of an epoch")
    for axes in (left, right):
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.grid(alpha=0.3)
    return drawing
