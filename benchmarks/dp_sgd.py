"""Private training at three budgets, of three seeds each: the figures of docs/privacy.md.

    python -m benchmarks.dp_sgd

Trains experiments/dp_sgd.py with a learning rate for each epsilon, each run from a process of its own, and prints, as
Markdown, the mean and the spread of the test accuracy of the final parameters, the epsilon spent, and the median time
of the whole command. The last column is the figure of Abadi 2016, section 5. Everything was chosen on 10,000 held-out
training images, trained on the other 50,000, of seeds 100 to 103: none of these runs' seeds, no test image.
"""

import statistics

from benchmarks.options import options
from benchmarks.trained import EXPERIMENTS, train

SEEDS = range(3)
RATES = {0.5: 1.5, 2.0: 4.0, 8.0: 6.0}
"""Learning rates: the less noise, the longer the steps that pay."""
PUBLISHED = {0.5: 90, 2.0: 95, 8.0: 97}


def main() -> None:
    options(__doc__).parse_args()
    print("| epsilon | learning rate | test accuracy, mean | lowest to highest | epsilon spent | in all | Abadi 2016 |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for epsilon, published in PUBLISHED.items():
        fields = {"privacy.epsilon": epsilon, "optimizer.learning-rate": RATES[epsilon]}
        runs = [train(EXPERIMENTS / "dp_sgd.py", fields | {"train.seed": seed}) for seed in SEEDS]
        accuracies = [run.result["test_accuracy"] for run in runs]
        print(
            f"| {epsilon:g} | {RATES[epsilon]:g} | {100 * statistics.mean(accuracies):.2f} % "
            f"| {100 * min(accuracies):.2f} to {100 * max(accuracies):.2f} % "
            f"| {max(run.result['epsilon'] for run in runs):.4f} "
            f"| {statistics.median(run.seconds for run in runs):.0f} s | {published} % |",
            flush=True,
        )


if __name__ == "__main__":
    main()
