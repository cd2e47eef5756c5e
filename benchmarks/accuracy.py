"""Accuracy of the experiments over seeds 0 to 4, each from a process of its own: the figures of the README's table.

    python benchmarks/accuracy.py [EXPERIMENT ...]

Prints, as Markdown, for each experiment the mean and the spread of the test accuracy of the final parameters, the
median time of an epoch, and the median time of the whole command, from the start of the process to its end.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
SEEDS = range(5)


def run(experiment: Path, seed: int) -> tuple[float, float, float]:
    """One run's test accuracy, median seconds of an epoch, and seconds in all."""
    with tempfile.TemporaryDirectory() as place:
        started = time.perf_counter()
        jaxmlp = [Path(sys.executable).with_name("jaxmlp"), "train", experiment]
        subprocess.run(
            [*jaxmlp, "--workdir", f"{place}/run", "--train.seed", str(seed)], check=True, stdout=subprocess.DEVNULL
        )
        seconds = time.perf_counter() - started
        result = json.loads(Path(place, "run", "result.json").read_text())
        epochs = [json.loads(line)["seconds"] for line in Path(place, "run", "metrics.jsonl").read_text().splitlines()]
    return result["test_accuracy"], statistics.median(epochs), seconds


def main() -> None:
    """Runs the experiments named on the command line, or all."""
    paths = [Path(name) for name in sys.argv[1:]] or sorted(EXPERIMENTS.glob("*.py"))
    print("| experiment | test accuracy, mean | lowest to highest | an epoch | in all |")
    print("| --- | --- | --- | --- | --- |")
    for path in paths:
        accuracies, epochs, seconds = zip(*(run(path, seed) for seed in SEEDS), strict=True)
        print(
            f"| {path.stem} | {100 * statistics.mean(accuracies):.2f} % "
            f"| {100 * min(accuracies):.2f} to {100 * max(accuracies):.2f} % "
            f"| {statistics.median(epochs):.3f} s | {statistics.median(seconds):.1f} s |",
            flush=True,
        )


if __name__ == "__main__":
    main()
