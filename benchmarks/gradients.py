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
from typing import Any

import jax
import numpy as np
import optax

from jaxmlp import Network
from jaxmlp.data.dataset import Examples
from jaxmlp.network import init
from jaxmlp.training.epoch import Part, Recipe, TrainState, train_steps

NETWORKS = ("784-16-16-10", "784-30-10", "784-64-10", "784-100-10", "784-300-10", "64-32-10")
BATCHES = (1, 2, 3, 4, 6, 8, 10, 12, 16, 24, 32, 64, 100, 128, 256, 1024)
GRADIENTS = ("manual", "auto")
SGD = optax.sgd(0.1)


def steps_of(sizes: tuple[int, ...], batch: int) -> dict[str, Any]:
    """By its gradient, a function that trains so many steps as take about 30 milliseconds; and how many, as `count`."""
    count = int(np.clip(3e8 // (batch * sizes[0] * sizes[1]), 8, 2000))
    rng = np.random.default_rng(0)
    inputs = rng.integers(0, 256, (count, batch, sizes[0])).astype(np.uint8)
    batches = jax.device_put(Examples(inputs, rng.integers(0, sizes[-1], (count, batch)).astype(np.int32)))
    network = Network(sizes)
    params = init(jax.random.key(0), network)
    given = TrainState(params, SGD.init(params)), np.zeros(count, np.float32), batches
    part = Part.of(0, count, seed=0, number=0, total=count * batch)
    recipes = {gradient: Recipe(network, SGD, gradient) for gradient in GRADIENTS}
    return {"count": count} | {
        gradient: lambda recipe=recipe: jax.block_until_ready(train_steps(*given, part, recipe=recipe))
        for gradient, recipe in recipes.items()
    }


def microseconds(sizes: tuple[int, ...], batch: int, turns: int) -> dict[str, float]:
    """The median of a step's."""
    steps = steps_of(sizes, batch)
    taken: dict[str, list[float]] = {gradient: [] for gradient in GRADIENTS}
    for turn in range(turns + 1):
        for gradient in GRADIENTS if turn % 2 else reversed(GRADIENTS):
            started = time.perf_counter()
            steps[gradient]()
            if turn:  # the first compiles
                taken[gradient].append((time.perf_counter() - started) / steps["count"] * 1e6)
    return {gradient: statistics.median(times) for gradient, times in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", default=NETWORKS, metavar="SIZES", help="such as 784-16-16-10")
    parser.add_argument("--batch", nargs="+", type=int, default=BATCHES)
    parser.add_argument("--turns", type=int, default=11)
    given = parser.parse_args()
    print("| network | batch | manual | auto | auto / manual |\n| --- | --- | --- | --- | --- |")
    for name in given.networks:
        for batch in given.batch:
            manual, auto = microseconds(tuple(map(int, name.split("-"))), batch, given.turns).values()
            print(f"| {name} | {batch} | {manual:.1f} | {auto:.1f} | {auto / manual:.2f} |", flush=True)


if __name__ == "__main__":
    main()
