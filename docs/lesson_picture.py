"""Draws the picture of the README from a run of experiments/lesson.py.

jaxmlp train experiments/lesson.py --workdir runs/lesson
python docs/lesson_picture.py runs/lesson --png docs/lesson.png
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import jaxmlp


def main(folder: str, png: Path) -> None:
    """Curves, the first layer's kernels, and the test images that the network is most sure and wrong about."""
    run, dataset = jaxmlp.load(folder), jaxmlp.load_data("mnist")
    images, labels = dataset.test.inputs, dataset.test.targets
    figure = plt.figure(figsize=(11, 4.2), layout="constrained")
    left, middle, right = figure.subfigures(1, 3, width_ratios=[1.25, 1, 1])

    epochs = [record.epoch for record in run.history]
    top, bottom = left.subplots(2, 1, sharex=True)
    top.plot(epochs, [record.train_loss for record in run.history], label="training")
    top.plot(epochs, [record.validation_loss for record in run.history], label="validation")
    top.set_ylabel("cost")
    top.legend()
    bottom.plot(epochs, [100 * record.validation_accuracy for record in run.history], color="C1")
    assert run.result is not None
    assert run.result.test_accuracy is not None
    bottom.axhline(100 * run.result.test_accuracy, color="C2", linestyle=":")
    bottom.annotate(
        f"test, at the end: {100 * run.result.test_accuracy:.2f} %", (0.98, 0.08), xycoords="axes fraction", ha="right"
    )
    bottom.set(xlabel="epoch", ylabel="accuracy, %")
    left.suptitle("Learning")

    kernel = run.params[0].kernel
    limit = np.quantile(np.abs(kernel), 0.995)
    for unit, axes in enumerate(middle.subplots(4, 4).flat):
        axes.imshow(kernel[:, unit].reshape(28, 28), cmap="RdBu", vmin=-limit, vmax=limit)
        axes.axis("off")
    middle.suptitle("Weights into layer 1: blue for, red against")

    predicted, sure = run.predict(images), run.outputs(images).max(axis=1)
    worst = np.argsort(np.where(predicted != labels, -sure, 0))[:16]
    for i, axes in zip(worst, right.subplots(4, 4).flat, strict=True):
        axes.imshow(images[i].reshape(28, 28), cmap="gray_r")
        axes.set_title(f"{labels[i]} taken for {predicted[i]}", fontsize=7, pad=2)
        axes.axis("off")
    right.suptitle("Its surest mistakes")
    figure.savefig(png, dpi=110)
    print(f"{png} shows it")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Draws what a run of experiments/lesson.py has learned.")
    parser.add_argument("folder", metavar="RUN", help="such as runs/lesson")
    parser.add_argument("--png", type=Path, default=Path("lesson.png"), help="by default lesson.png")
    main(**vars(parser.parse_args()))
