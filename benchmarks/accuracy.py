"""Accuracy of experiments over seeds, each run from a process of its own: the figures of the README's table.

    python -m benchmarks.accuracy [--seeds N] EXPERIMENT ...

Prints, as Markdown, for each experiment the mean and the spread of the test accuracy of the final parameters over the
seeds 0 to N - 1 (5 without --seeds), the median time of an epoch, and the median time of the whole command, from the
start of the process to its end.
"""

import argparse
import statistics
from pathlib import Path

from benchmarks.trained import train


def main() -> None:
    """Runs the experiments named on the command line."""
    parser = argparse.ArgumentParser(description="Accuracy of experiments over seeds.")
    parser.add_argument("--seeds", type=int, default=5, help="how many, from 0; 5 by default")
    parser.add_argument("experiments", nargs="+", type=Path, help="such as experiments/lesson.py")
    given = parser.parse_args()
    print("| experiment | test accuracy, mean | lowest to highest | an epoch | in all |")
    print("| --- | --- | --- | --- | --- |")
    for path in given.experiments:
        runs = [train(path, {"train.seed": seed}) for seed in range(given.seeds)]
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
