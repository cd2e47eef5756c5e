"""Epochs whose steps gather their examples against those whose examples are put in order ahead, in turns.

python -m benchmarks.gathering 784-16-16-10 --batch 1024
"""

from collections.abc import Callable

import numpy as np

import jaxmlp
from benchmarks.compare import processor
from benchmarks.gradients import microseconds, named
from benchmarks.options import mnist_sizes, options, positive
from jaxmlp.training.batches import Feed
from jaxmlp.training.epoch import initial_state
from jaxmlp.training.fit import NONE, Training


def contestant(experiment: jaxmlp.Experiment, dataset: jaxmlp.Dataset, ahead: bool) -> Callable[[], None]:
    """A function that trains an epoch."""
    state, done, count = initial_state(experiment), 0, dataset.train.size
    training = Training(experiment, dataset.train, state.params, np.arange(count), None, dataset.shape)
    training.feed = Feed(dataset.train, experiment.train.seed, training.batch_size, ahead)

    def epoch() -> None:
        nonlocal state, done
        done += 1
        for part in training.epoch(state, done, NONE):
            state = part.state

    return epoch


def main() -> None:
    """Prints a line."""
    parser = options(__doc__)
    parser.add_argument("network", type=mnist_sizes, metavar="SIZES", help="such as 784-16-16-10")
    parser.add_argument("--batch", type=positive, default=1024, help="examples of a batch")
    parser.add_argument("--gradient", choices=["manual", "auto"], default="manual")
    parser.add_argument("--turns", type=positive, default=21, help="epochs of each")
    given = parser.parse_args()
    dataset = jaxmlp.load_data("mnist")
    train = jaxmlp.Train(epochs=10**9, batch_size=given.batch, gradient=given.gradient)
    experiment = jaxmlp.Experiment(jaxmlp.Network(given.network), optimizer=jaxmlp.Optimizer("sgd", 0.1), train=train)
    epochs = {"gathered": contestant(experiment, dataset, False), "ahead": contestant(experiment, dataset, True)}
    gathered, ahead = microseconds(epochs, given.turns, steps=1).values()
    print(
        f"{named(given.network)}, batches of {given.batch}, {given.gradient}: an epoch takes {gathered / 1e3:.2f} ms "
        f"gathered, {ahead / 1e3:.2f} ahead, {gathered / ahead:.2f} of it; {processor()}"
    )


if __name__ == "__main__":
    main()
