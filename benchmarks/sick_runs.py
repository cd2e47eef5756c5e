"""Runs made sick on purpose, and healthy ones: what the diagnosis says of each.

    python -m benchmarks.sick_runs          # about 4 minutes on 2 cores

Short runs on MNIST. Sick: a learning rate 30 times too high or too low, hidden layers saturated by inputs from 0 to 255
where 0 to 1 is meant, a deep stack of sigmoids, batches of 8,192, and 1 % of the training labels changed. The healthy
ones are the experiments' networks and one of relu and softmax, of three seeds each: of them nothing is to be said. The
rules' thresholds were chosen on these runs; `--unseen` trains networks and seeds that were not looked at then.
"""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

import jaxmlp
from benchmarks.options import options
from jaxmlp import Data, Dataset, Experiment, Network, Optimizer, Record, Train
from jaxmlp.training.diagnosis import ADVISED, findings, read_figures

LESSON, NIELSEN = Network((784, 16, 16, 10)), Network((784, 30, 10))
RELU = Network((784, 64, 10), "relu", "softmax", "cross_entropy")
HEALTHY = {
    "lesson": (LESSON, 0.7, 32),
    "nielsen_30": (NIELSEN, 0.5, 10),
    "relu and softmax": (RELU, 0.1, 32),
    "regression": (Network((784, 10), output="softmax", loss="cross_entropy"), 0.1, 32),
}

UNSEEN = {
    "tanh, two hidden layers": (Network((784, 64, 64, 10), "tanh", "softmax", "cross_entropy"), 0.1, 64),
    "relu, three hidden layers": (Network((784, 48, 48, 48, 10), "relu", "softmax", "cross_entropy"), 0.1, 32),
    "silu": (Network((784, 128, 10), "silu", "softmax", "cross_entropy"), 0.2, 64),
    "sigmoid, binary cross-entropy": (Network((784, 40, 10), "sigmoid", "sigmoid", "binary_cross_entropy"), 0.2, 20),
}
"""Networks that no threshold was chosen on."""


def words(network: Network, rate: float, batch: int, dataset: Dataset, epochs: int = 5, seed: int = 0) -> list[str]:
    """Trains, recording, and says what stands out."""
    record = Record(tuple(ADVISED.split()))
    experiment = Experiment(network, Data(), Optimizer("sgd", rate), Train(epochs, batch, seed), record)
    with tempfile.TemporaryDirectory() as folder:
        jaxmlp.fit(experiment, dataset, workdir=Path(folder) / "run")
        found = findings(read_figures(Path(folder) / "run", dataset))
    return [f"[{name}] {line}" for name, line in found.items()]


def flipped(dataset: Dataset, share: float, seed: int) -> tuple[Dataset, np.ndarray]:
    """The data set with a share of its training labels changed at random to others, and the indices of those."""
    rng, labels = np.random.default_rng(seed), dataset.train.targets.copy()
    which = rng.choice(labels.size, round(share * labels.size), replace=False)
    labels[which] = (labels[which] + rng.integers(1, 10, which.size)) % 10
    return replace(dataset, train=dataset.train._replace(targets=labels.astype(np.int32))), which


def main() -> None:
    """Prints each run's name and the lines that it got."""
    parser = options(__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="of every healthy run")
    parser.add_argument("--unseen", action="store_true", help="networks and seeds that no threshold was chosen on")
    given = parser.parse_args()
    networks, first = (UNSEEN, 5) if given.unseen else (HEALTHY, 0)
    mnist = jaxmlp.load_data("mnist")
    train, test = mnist.train, mnist.test
    unscaled = Dataset.from_arrays(
        train.inputs.astype(np.float32), train.targets, test.inputs.astype(np.float32), test.targets, name="0 to 255"
    )
    changed, _ = flipped(mnist, 0.01, first)
    runs = []
    for name, (network, rate, batch) in networks.items():
        seeds = range(first, first + given.seeds)
        runs += [(f"healthy: {name}, seed {seed}", network, rate, batch, mnist, 5, seed) for seed in seeds]
    for name, (network, rate, batch) in networks.items():
        if name != "regression":  # convex: 30 times the rate is noisy, and gets there all the same
            runs.append((f"rate x 30: {name}", network, 30 * rate, batch, mnist, 4, first))
            runs.append((f"rate / 30: {name}", network, rate / 30, batch, mnist, 5, first))
            runs.append((f"batch 8,192: {name}", network, rate, 8192, mnist, 6, first))
            runs.append((f"1 % of labels changed: {name}", network, rate, batch, changed, 8, first))
    for sizes in ((784, 30, 10), (784, 30, 30, 10)):
        runs.append((f"saturated: inputs to 255, {sizes}", Network(sizes), 0.7, 32, unscaled, 3, first))
    deep = Network((784, *[30] * 6, 10), "sigmoid", "softmax", "cross_entropy")
    runs.append(("vanishing: 6 hidden layers of sigmoids", deep, 0.1, 32, mnist, 3, first))
    for name, *settings in runs:
        try:
            said = words(*settings)
        except jaxmlp.DivergedError as error:
            said = [f"[diverged] {error}"]
        print(f"{name}\n  " + "\n  ".join(said or ["-"]), flush=True)


if __name__ == "__main__":
    main()
