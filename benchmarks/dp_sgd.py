"""Private training at three budgets, of three seeds each: the figures of docs/privacy.md.

    python benchmarks/dp_sgd.py

Trains experiments/dp_sgd.py with a learning rate for each epsilon, each run from a process of its own, and prints, as
Markdown, the mean and the spread of the test accuracy of the final parameters, the epsilon spent, and the median time
of the whole command. The last column is the figure of Abadi 2016, section 5. Everything was chosen on 10,000 held-out
training images, trained on the other 50,000, of seeds 100 to 103: none of these runs' seeds, no test image.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

EXPERIMENT = Path(__file__).parents[1] / "experiments" / "dp_sgd.py"
SEEDS = range(3)
RATES = {0.5: 1.5, 2.0: 4.0, 8.0: 6.0}
"""Learning rates: the less noise, the longer the steps that pay."""
PUBLISHED = {0.5: 90, 2.0: 95, 8.0: 97}


def run(epsilon: float, seed: int) -> tuple[float, float, float]:
    """One run's test accuracy, the epsilon that it spent, and seconds in all."""
    with tempfile.TemporaryDirectory() as place:
        started = time.perf_counter()
        jaxmlp = [Path(sys.executable).with_name("jaxmlp"), "train", EXPERIMENT, "--workdir", f"{place}/run"]
        fields = {"privacy.epsilon": epsilon, "optimizer.learning-rate": RATES[epsilon], "train.seed": seed}
        options = [text for name, value in fields.items() for text in (f"--{name}", str(value))]
        subprocess.run([*jaxmlp, *options], check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - started
        result = json.loads(Path(place, "run", "result.json").read_text())
    return result["test_accuracy"], result["epsilon"], seconds


def main() -> None:
    print("| epsilon | learning rate | test accuracy, mean | lowest to highest | epsilon spent | in all | Abadi 2016 |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for epsilon, published in PUBLISHED.items():
        accuracies, spent, seconds = zip(*(run(epsilon, seed) for seed in SEEDS), strict=True)
        print(
            f"| {epsilon:g} | {RATES[epsilon]:g} | {100 * statistics.mean(accuracies):.2f} % "
            f"| {100 * min(accuracies):.2f} to {100 * max(accuracies):.2f} % "
            f"| {max(spent):.4f} | {statistics.median(seconds):.0f} s | {published} % |",
            flush=True,
        )


if __name__ == "__main__":
    main()
