"""A step by the hand-derived gradient and by `jax.grad`, in turns in one process, over sizes and batches.

    python -m benchmarks.gradients                                                      # about 3 minutes on 2 cores
    python -m benchmarks.gradients 784-100-10 784-30-10 --batch 2 4 8

`benchmarks.compare` times whole epochs of a few settings, in many processes; this times the compiled steps alone, and
finds the settings where a form of a product that `jaxmlp/products.py` chooses is the wrong one. Prints, as Markdown,
medians of microseconds a step; the gradients change places from turn to turn.
"""

import argparse
import statistics
import time

import jax
import numpy as np
import optax

from benchmarks.compare import named, operations
from jaxmlp import Network
from jaxmlp.data.dataset import Examples
from jaxmlp.network import init
from jaxmlp.training.epoch import GRADIENTS, Recipe, TrainState, train_epoch

NETWORKS = ((784, 16, 16, 10), (784, 30, 10), (784, 64, 10), (784, 100, 10), (784, 300, 10), (64, 32, 10))
BATCHES = (1, 2, 3, 4, 6, 8, 10, 12, 16, 24, 32, 64, 100, 128, 256, 1024)
SGD = optax.sgd(0.1)


def positive(text: str) -> int:
    if int(text) < 1:
        raise ValueError
    return int(text)


def sizes(text: str) -> tuple[int, ...]:
    found = tuple(positive(part) for part in text.split("-"))
    if len(found) < 2:
        raise ValueError
    return found


def microseconds(network: Network, batch: int, turns: int) -> dict[str, float]:
    """By its gradient, the median time of a step, from turns of so many steps as take some hundredths of a second."""
    steps, rng = int(np.clip(1.2e9 // (batch * operations(network.sizes)), 8, 2000)), np.random.default_rng(0)
    inputs = rng.integers(0, 256, (steps, batch, network.sizes[0])).astype(np.uint8)
    batches = Examples(inputs, rng.integers(0, network.sizes[-1], (steps, batch)).astype(np.int32))
    params = init(jax.random.key(0), network)
    state, batches = jax.device_put((TrainState(params, SGD.init(params)), batches))
    taken: dict[str, list[float]] = {gradient: [] for gradient in GRADIENTS}
    for turn in range(turns + 1):
        for gradient in GRADIENTS if turn % 2 else reversed(GRADIENTS):
            started = time.perf_counter()
            jax.block_until_ready(train_epoch(state, batches, steps * batch, recipe=Recipe(network, SGD, gradient)))
            if turn:  # the first compiles
                taken[gradient].append((time.perf_counter() - started) / steps * 1e6)
    return {gradient: statistics.median(times) for gradient, times in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", type=sizes, metavar="SIZES", help="such as 784-16-16-10")
    parser.add_argument("--batch", nargs="+", type=positive, default=BATCHES, help="examples of a batch")
    parser.add_argument("--turns", type=positive, default=11, help="turns of each gradient")
    given = parser.parse_args()
    print("| network | batch | manual | auto | auto / manual |\n| --- | --- | --- | --- | --- |")
    for network in map(Network, given.networks or NETWORKS):
        for batch in given.batch:
            manual, auto = microseconds(network, batch, given.turns).values()
            print(f"| {named(network.sizes)} | {batch} | {manual:.1f} | {auto:.1f} | {auto / manual:.2f} |", flush=True)


if __name__ == "__main__":
    main()
