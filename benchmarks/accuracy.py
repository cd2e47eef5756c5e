"""Accuracy of the experiments over seeds 0 to 4, each from a process of its own: the figures of the README's table.

    python -m benchmarks.accuracy [EXPERIMENT ...]

Prints, as Markdown, for each experiment the mean and the spread of the test accuracy of the final parameters, the
median time of an epoch, and the median time of the whole command, from the start of the process to its end.
"""

import statistics
import sys
from pathlib import Path

from benchmarks.trained import EXPERIMENTS, train

SEEDS = range(5)


def main() -> None:
    """Runs the experiments named on the command line, or all."""
    paths = [Path(name) for name in sys.argv[1:]] or sorted(EXPERIMENTS.glob("*.py"))
    print("| experiment | test accuracy, mean | lowest to highest | an epoch | in all |")
    print("| --- | --- | --- | --- | --- |")
    for path in paths:
        runs = [train(path, {"train.seed": seed}) for seed in SEEDS]
        accuracies = [run.result["test_accuracy"] for run in runs]
        epochs = [statistics.median(run.epochs) for run in runs]
        print(
            f"| {path.stem} | {100 * statistics.mean(accuracies):.2f} % "
            f"| {100 * min(accuracies):.2f} to {100 * max(accuracies):.2f} % "
            f"| {statistics.median(epochs):.3f} s | {statistics.median(run.seconds for run in runs):.1f} s |",
            flush=True,
        )


if __name__ == "__main__":
    main()
