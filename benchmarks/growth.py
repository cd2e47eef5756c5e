"""How an epoch's time grows with the examples, a run's time and memory with the epochs, over two decades each.

    python -m benchmarks.growth

The lesson's network, batches of 32. Epochs of different numbers of examples take turns in one process; one run of 100
epochs is looked at after 1, 10 and 100. Prints, as Markdown, medians of 9 turns, and what the run had taken and held by
then.
"""

import statistics
import time
from pathlib import Path

import jaxmlp
from benchmarks.contestants import Task
from benchmarks.contestants import jaxmlp as contestant
from benchmarks.options import options
from jaxmlp.training.records import EpochRecord

SIZES, BATCH, TURNS = (784, 16, 16, 10), 32, 9
EXAMPLES = (600, 1_900, 6_000, 19_000, 60_000)
EPOCHS = (1, 10, 100)


def resident() -> int:
    """Bytes of memory that this process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def by_examples() -> None:
    trainers = {count: contestant(Task(SIZES, BATCH, False, 0.7, count, 0), "manual") for count in EXAMPLES}
    seconds: dict[int, list[float]] = {count: [] for count in EXAMPLES}
    for turn in range(TURNS + 1):
        for count, trainer in trainers.items():
            started = time.perf_counter()
            trainer.epoch(turn)
            if turn:  # the first compiles
                seconds[count].append(time.perf_counter() - started)
    print("| examples | an epoch | an example |\n| --- | --- | --- |")
    for count, times in seconds.items():
        median = statistics.median(times)
        print(f"| {count:,} | {1e3 * median:.2f} ms | {1e6 * median / count:.2f} us |")


def by_epochs() -> None:
    network, train = jaxmlp.Network(SIZES), jaxmlp.Train(epochs=max(EPOCHS), batch_size=BATCH)
    experiment = jaxmlp.Experiment(network, optimizer=jaxmlp.Optimizer("sgd", learning_rate=0.7), train=train)
    print("\n| epochs | training, in all | an epoch | memory |\n| --- | --- | --- | --- |")
    total = 0.0

    def report(record: EpochRecord) -> None:
        nonlocal total
        total += record.seconds
        if record.epoch in EPOCHS:
            print(
                f"| {record.epoch} | {total:.3f} s | {1e3 * total / record.epoch:.1f} ms | {resident() / 1e6:.0f} MB |"
            )

    jaxmlp.fit(experiment, jaxmlp.load_data("mnist"), report=report)


if __name__ == "__main__":
    options(__doc__).parse_args()
    by_examples()
    by_epochs()
