"""Epochs whose steps gather their examples against those whose examples are put in order ahead, in turns.

python -m benchmarks.gathering 784-16-16-10 --batch 1024
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np

import jaxmlp
from benchmarks.compare import processor
from benchmarks.gradients import named, positive, sizes
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", type=sizes, metavar="SIZES", help="such as 784-16-16-10")
    parser.add_argument("--batch", type=positive, default=1024, help="examples of a batch")
    parser.add_argument("--gradient", choices=["manual", "auto"], default="manual")
    parser.add_argument("--turns", type=positive, default=11, help="turns of each, of as many epochs as --epochs")
    parser.add_argument("--epochs", type=positive, default=3)
    given = parser.parse_args()
    dataset = jaxmlp.load_data("mnist")
    train = jaxmlp.Train(epochs=10**9, batch_size=given.batch, gradient=given.gradient)
    experiment = jaxmlp.Experiment(jaxmlp.Network(given.network), optimizer=jaxmlp.Optimizer("sgd", 0.1), train=train)
    epochs = {"gathered": contestant(experiment, dataset, False), "ahead": contestant(experiment, dataset, True)}
    seconds: dict[str, list[float]] = {way: [] for way in epochs}
    for turn in range(given.turns + 1):
        for way in epochs if turn % 2 else reversed(epochs):
            begun = time.perf_counter()
            for _ in range(given.epochs):
                epochs[way]()
            if turn:  # the first compiles
                seconds[way].append((time.perf_counter() - begun) / given.epochs)
    gathered, ahead = (statistics.median(taken) for taken in seconds.values())
    print(
        f"{named(given.network)}, batches of {given.batch}, {given.gradient}: an epoch takes {1e3 * gathered:.2f} ms "
        f"gathered, {1e3 * ahead:.2f} ahead, {gathered / ahead:.2f} of it; {processor()}"
    )


if __name__ == "__main__":
    main()
