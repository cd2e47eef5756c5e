"""What recording costs: epochs that record nothing, what is cheap, and each quantity alone.

    python -m benchmarks.recording
    python -m benchmarks.recording --sizes 784 512 512 10 --batch-size 128 --turns 5

By default the lesson's network, 784-16-16-10, in batches of 32; all 60,000 training images, every quantity recorded at
every step. The contestants take turns, and each epoch is followed by one of `train_epoch`, which records nothing: the
ratios are of such neighbours, so that a slow second of the machine slows both.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import get_args

import jax

import jaxmlp
from benchmarks.compare import processor
from benchmarks.options import options
from benchmarks.sick_runs import LESSON
from jaxmlp import Network, Optimizer, Record
from jaxmlp.data.dataset import Examples, on_device
from jaxmlp.training.batches import in_order, order_of
from jaxmlp.training.config import QuantityName
from jaxmlp.training.diagnosis import ADVISED
from jaxmlp.training.epoch import Part, Recipe, TrainState, train_epoch
from jaxmlp.training.optimizers import make
from jaxmlp.training.recording import record_epoch


def contestant(record: Record | None, examples: Examples, network: Network, batch_size: int) -> Callable[[int], float]:
    """A function that trains an epoch and gives its seconds, the transfer of what is recorded included."""
    optimizer, start = make(Optimizer("sgd", 0.7)), jaxmlp.init(jax.random.key(0), network)
    copy = jax.tree.map(lambda leaf: leaf.copy(), start)
    state, recipe = TrainState(copy, optimizer.init(copy)), Recipe(network, optimizer)

    def epoch(turn: int) -> float:
        nonlocal state
        order = jax.device_put(order_of(0, turn, examples.size, batch_size))
        begun = time.perf_counter()
        if record is None:
            state, cost, _ = train_epoch(state, in_order(examples, order), examples.size, recipe=recipe)
        else:
            state, cost, recorded = record_epoch(
                state, start, examples, order, Part.of(0, len(order), 0, 0, examples.size), recipe=recipe, record=record
            )
            jax.device_get(recorded)
        cost.block_until_ready()
        return time.perf_counter() - begun

    return epoch


def main() -> None:
    """Prints a table."""
    parser = options(__doc__)
    parser.add_argument("--turns", type=int, default=21, help="turns that count, 2 or more")
    parser.add_argument("--sizes", type=int, nargs="+", default=LESSON.sizes, help="of the network's layers")
    parser.add_argument("--batch-size", type=int, default=32, help="examples a step")
    given = parser.parse_args()
    network = replace(LESSON, sizes=tuple(given.sizes))
    examples = on_device(jaxmlp.load_data("mnist").train)  # shared, or the one used last would be nearest
    advised, names = tuple(ADVISED.split()), get_args(QuantityName)
    cheap = ("loss", "noise_scale", "norm_test", "example_losses", "example_norms")
    records = {"nothing": None, "the cheap ones": Record(cheap), "the advised ones": Record(advised)}
    records |= {"the advised ones, every 10 steps": Record(advised, 10)}
    records |= {"everything": Record(names), "everything, every 10 steps": Record(names, 10)}
    records |= {name: Record((name,)) for name in names}
    contestants = {name: contestant(record, examples, network, given.batch_size) for name, record in records.items()}
    nothing = contestant(None, examples, network, given.batch_size)
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
    for turn in range(given.turns + 1):
        for name, epoch in contestants.items():
            pair = epoch(turn), nothing(turn)
            if turn:  # the first compiles
                seconds[name].append(pair)
    print(
        f"{network}, batches of {given.batch_size}; {processor()}, jax {jax.__version__}; cheap: {', '.join(cheap)}\n"
    )
    print("| recorded at every step | an epoch | of nothing's | quartiles |\n| --- | --- | --- | --- |")
    for name, pairs in seconds.items():
        low, middle, high = statistics.quantiles([own / of_nothing for own, of_nothing in pairs], n=4)
        median = statistics.median(own for own, _ in pairs)
        print(f"| {name} | {median:.3f} s | {middle:.2f} | {low:.2f} to {high:.2f} |")


if __name__ == "__main__":
    main()
