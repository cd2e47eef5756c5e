"""A step by the hand-derived gradient and by `jax.grad`, in turns in one process, over sizes and batches.

    python -m benchmarks.gradients                                                      # about 3 minutes on 2 cores
    python -m benchmarks.gradients 784-100-10 784-30-10 --batch 2 4 8
    python -m benchmarks.gradients --called

`benchmarks.compare` times whole epochs of a few settings, in many processes; this times the compiled steps alone, and
finds the settings where a form of a product that `jaxmlp/products.py` chooses is the wrong one. With --called it times
calls of `jax.jit(jaxmlp.backprop)` and `jax.jit(jax.grad(jaxmlp.loss))`, whose kernels lie as their caller holds them.
Prints, as Markdown, medians of microseconds a step or call; the gradients change places from turn to turn.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
import optax

from benchmarks.compare import named, operations
from benchmarks.options import options, positive, sizes
from jaxmlp import Batch, Network, backprop, loss
from jaxmlp.data.dataset import Examples
from jaxmlp.network import init
from jaxmlp.training.epoch import GRADIENTS, Recipe, TrainState, train_epoch

NETWORKS = ((784, 16, 16, 10), (784, 30, 10), (784, 64, 10), (784, 100, 10), (784, 300, 10), (64, 32, 10))
BATCHES = (1, 2, 3, 4, 6, 8, 10, 12, 16, 24, 32, 64, 100, 128, 256, 1024)
SGD = optax.sgd(0.1)


def steps_of(network: Network, batch: int) -> int:
    """Steps that take some hundredths of a second."""
    return int(np.clip(1.2e9 // (batch * operations(network.sizes)), 8, 2000))


def epochs(network: Network, batch: int) -> dict[str, Callable[[], Any]]:
    """By its gradient, an epoch of so many steps."""
    steps, rng = steps_of(network, batch), np.random.default_rng(0)
    inputs = rng.integers(0, 256, (steps, batch, network.sizes[0])).astype(np.uint8)
    batches = Examples(inputs, rng.integers(0, network.sizes[-1], (steps, batch)).astype(np.int32))
    params = init(jax.random.key(0), network)
    state, batches = jax.device_put((TrainState(params, SGD.init(params)), batches))
    recipes = {gradient: Recipe(network, SGD, gradient) for gradient in GRADIENTS}
    return {
        gradient: partial(train_epoch, state, batches, steps * batch, recipe=recipe)
        for gradient, recipe in recipes.items()
    }


def calls(network: Network, batch: int) -> dict[str, Callable[[], Any]]:
    """By its gradient, as many calls of the function that returns it as an epoch has steps."""
    rng = np.random.default_rng(0)
    examples = Batch(
        rng.random((batch, network.sizes[0]), np.float32),
        rng.integers(0, network.sizes[-1], batch).astype(np.int32),
    )
    given = jax.device_put((init(jax.random.key(0), network), examples))
    functions = {"manual": backprop, "auto": jax.grad(loss)}
    compiled = {gradient: jax.jit(partial(function, network=network)) for gradient, function in functions.items()}

    def repeated(function: Callable[..., Any]) -> None:
        for _ in range(steps_of(network, batch)):
            jax.block_until_ready(function(*given))

    return {gradient: partial(repeated, function) for gradient, function in compiled.items()}


def microseconds(timed: dict[str, Callable[[], Any]], turns: int, steps: int) -> dict[str, float]:
    """The median time of a step of each, which has so many."""
    taken: dict[str, list[float]] = {gradient: [] for gradient in timed}
    for turn in range(turns + 1):
        for gradient in timed if turn % 2 else reversed(timed):
            started = time.perf_counter()
            jax.block_until_ready(timed[gradient]())
            if turn:  # the first compiles
                taken[gradient].append((time.perf_counter() - started) / steps * 1e6)
    return {gradient: statistics.median(times) for gradient, times in taken.items()}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("networks", nargs="*", type=sizes, metavar="SIZES", help="such as 784-16-16-10")
    parser.add_argument("--batch", nargs="+", type=positive, default=BATCHES, help="examples of a batch")
    parser.add_argument("--called", action="store_true", help="time calls of the gradients, not steps of an epoch")
    parser.add_argument("--turns", type=positive, default=11, help="turns of each gradient")
    given = parser.parse_args()
    print("| network | batch | manual | auto | auto / manual |\n| --- | --- | --- | --- | --- |")
    for network in map(Network, given.networks or NETWORKS):
        for batch in given.batch:
            timed = (calls if given.called else epochs)(network, batch)
            manual, auto = microseconds(timed, given.turns, steps_of(network, batch)).values()
            print(f"| {named(network.sizes)} | {batch} | {manual:.1f} | {auto:.1f} | {auto / manual:.2f} |", flush=True)


if __name__ == "__main__":
    main()
