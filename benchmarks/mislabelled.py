"""Of 1 % of MNIST's training labels, changed at random: how many does the diagnosis rank among the first 2 %?

    python -m benchmarks.mislabelled          # about 3 minutes on 2 cores

The examples are ranked as `jaxmlp diagnose` does, by their mean loss in the second half of the epochs, and, to compare,
by the other things that a run records of an example: the norm of its gradient (large first) and its cosine with the
batch's mean gradient (small first). All are trained on 60,000 images, with three seeds of the changed labels and of the
network; the share found is given in per cent, as their mean, and of each.
"""

import tempfile
from pathlib import Path

import numpy as np

import jaxmlp
from benchmarks.options import options
from benchmarks.sick_runs import LESSON, NIELSEN, flipped
from jaxmlp import Data, Experiment, Network, Optimizer, Record, Train
from jaxmlp.training.diagnosis import read_figures, stayed

WIDE = (784, 100, 10)
NETWORKS = {
    "784-100-10, sigmoid, cross-entropy": (Network(WIDE, "sigmoid", "softmax", "cross_entropy"), 0.5, 8, 32),
    "784-100-10, relu, cross-entropy": (Network(WIDE, "relu", "softmax", "cross_entropy"), 0.1, 8, 32),
    "784-16-16-10, sigmoid, squared error (lesson)": (LESSON, 0.7, 12, 32),
    "784-30-10, sigmoid, squared error (nielsen_30)": (NIELSEN, 0.5, 8, 10),
}
RECORD = Record(("example_losses", "example_norms", "example_cosines"))


def found(network: Network, rate: float, epochs: int, batch: int, seed: int) -> list[float]:
    """The share of the changed labels among the first 2 %, by loss, by norm and by cosine."""
    dataset, which = flipped(jaxmlp.load_data("mnist"), 0.01, seed)
    experiment = Experiment(network, Data(validation=0), Optimizer("sgd", rate), Train(epochs, batch, seed), RECORD)
    with tempfile.TemporaryDirectory() as folder:
        jaxmlp.fit(experiment, dataset, workdir=Path(folder) / "run")
        figures = read_figures(Path(folder) / "run", dataset)
    count = dataset.train.size // 50
    rankings = [figures.ranking, np.argsort(-stayed(figures, "example_norms"))]
    rankings.append(np.argsort(stayed(figures, "example_cosines")))
    return [float(np.isin(which, figures.indices[ranking[:count]]).mean()) for ranking in rankings]


def main() -> None:
    """Prints a table."""
    parser = options(__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    print("| network | by loss, as diagnose does | by gradient norm | by cosine |\n| --- | --- | --- | --- |")
    for name, (network, rate, epochs, batch) in NETWORKS.items():
        shares = 100 * np.array([found(network, rate, epochs, batch, seed) for seed in range(given.seeds)])
        cells = [f"{column.mean():.1f} ({', '.join(f'{one:.1f}' for one in column)})" for column in shares.T]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
