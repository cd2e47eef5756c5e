"""How much labelled data is enough: the lesson's network and a wider one, on 100 to all 60,000 of MNIST's digits.

    jaxmlp sweep experiments/how_much_data.py

Source: 3Blue1Brown, "What is backpropagation really doing?" (2017): what a network needs most is labelled data.
Expected: 32.6 % of the test images wrong with 100 examples, 13.6 % with 1,000, 7.5 % with 10,000 and 4.9 % with all;
with 100 hidden units 26.4, 11.0, 4.2 and 2.2 %. No end is seen: every tenfold pays. In about 430 s on 2 CPU cores.
The mean and the standard deviation over 5 seeds, each of which draws its own examples. Nothing is chosen: every run has
the lesson's settings, and sees 1,800,000 examples, or each of few 1,000 times. `--train.epochs 3`, for the 30 of all
examples, makes it a tenth.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from jaxmlp import Data, Experiment, Network, Optimizer, Run, Train

EXAMPLES = (100, 300, 1_000, 3_000, 10_000, 30_000, 60_000)
MOST = 100 / 3
"""Times the epochs of all examples, at most."""


def experiment() -> Experiment:
    """The lesson's, on all examples."""
    return Experiment(
        network=Network(sizes=(784, 16, 16, 10), activation="sigmoid", output="sigmoid", loss="squared_error"),
        data=Data(validation=0),
        optimizer=Optimizer(name="sgd", learning_rate=0.7),
        train=Train(epochs=30, batch_size=32),
    )


def sweep(experiment: Experiment) -> list[Experiment]:
    """5 seeds of each number of examples, with 16 and 16 hidden units and with 100."""
    often = {n: min(MOST, max(EXAMPLES) / n) for n in EXAMPLES}
    return [
        replace(
            experiment,
            network=replace(experiment.network, sizes=sizes),
            data=replace(experiment.data, examples=examples),
            train=replace(experiment.train, epochs=round(experiment.train.epochs * often[examples]), seed=seed),
        )
        for sizes in ((784, 16, 16, 10), (784, 100, 10))
        for examples in EXAMPLES
        for seed in range(5)
    ]


def figure(runs: Sequence[Run]) -> Figure:
    """The test error against the number of examples, a line a network."""
    drawing = Figure(figsize=(6.5, 4.2), layout="constrained")
    axes = drawing.subplots()
    for sizes in dict.fromkeys(run.experiment.network.sizes for run in runs):
        errors = {
            examples: [
                100 * (1 - run.result.test_accuracy)
                for run in runs
                if (run.experiment.network.sizes, run.experiment.data.examples) == (sizes, examples)
            ]
            for examples in EXAMPLES
        }
        shown = [examples for examples in EXAMPLES if errors[examples]]
        mean, deviation = np.transpose([(np.mean(errors[n]), np.std(errors[n])) for n in shown])
        axes.errorbar(shown, mean, deviation, marker="o", capsize=3, label="-".join(map(str, sizes)))
    axes.set(xscale="log", yscale="log", xlabel="training examples", ylabel="test error, %")
    axes.set_yticks([2, 5, 10, 20, 50], ["2", "5", "10", "20", "50"])
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.3)
    axes.legend()
    return drawing
