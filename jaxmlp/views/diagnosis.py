"""The page that `jaxmlp diagnose` draws of a recorded run."""

import math
import textwrap

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator

from jaxmlp.training.diagnosis import Figures, contradicted, stuck, verdict
from jaxmlp.training.instruments import EDGES
from jaxmlp.training.recording import finite_mean
from jaxmlp.views.plots import FEW

POINTS = 150
"""That a line is drawn with: of more steps, each point is the mean of as many as it takes."""

PICTURES = 10


def diagnosis_figure(figures: Figures, lines: list[str], title: str) -> Figure:
    """One page: the title, what stands out and what could not be judged, and pictures.

    Of the costs, the PANELS of what was recorded, and the likeliest mislabelled examples.
    """
    panels = [panel for panel in PANELS if any(name in figures.recordings[0] for name in panel[0])]
    columns = 3
    binned = "gradient_histogram" in figures.recordings[0]
    rows = math.ceil((1 + len(panels) + binned) / columns)
    pictured = pictures(figures)
    told = verdict(figures, lines)
    said = "\n".join(textwrap.fill(f"- {line}", 150, subsequent_indent="  ") for line in told)
    top = 0.75 + 0.21 * (said.count("\n") + 1)
    height = top + 2.9 * rows + 1.9 * bool(pictured.size)
    page = Figure(figsize=(14.5, height), layout="constrained")
    heights = [top, 2.9 * rows, *[1.9] * bool(pictured.size)]
    parts: np.ndarray = np.asarray(page.subfigures(len(heights), 1, height_ratios=heights))
    text, plots, *strip = parts
    text.text(0.01, 0.93, title, va="top", size=14, weight="bold", parse_math=False)
    text.text(0.01, 1 - 0.5 / top, said, va="top", size=11, linespacing=1.35)
    axes = plots.subplots(rows, columns, squeeze=False).ravel()
    curves(axes[0], figures)
    for axis, (names, label, scale, unit) in zip(axes[1:], panels, strict=False):
        draw(axis, figures, names, label, scale, unit)
    used = 1 + len(panels)
    if binned:
        histogram(axes[used], figures)
        used += 1
    for axis in axes[used:]:
        axis.set_axis_off()
    if pictured.size:
        show(strip[0], figures, pictured)
    return page


def curves(axis: Axes, figures: Figures) -> None:
    """The two costs, and the accuracy in the title."""
    history = figures.run.history
    epochs = [line.epoch for line in history]
    dot = "o" if len(epochs) < FEW else ""
    costs: dict[str, list[float | None]] = {
        "training": [line.train_loss for line in history],
        "validation": [line.validation_loss for line in history],
    }
    for label, values in costs.items():
        if None not in values:
            axis.plot(epochs, np.array(values, float), marker=dot, ms=3, label=label)
    accuracy = history[-1].validation_accuracy
    ending = "" if accuracy is None else f", validation accuracy {100 * accuracy:.1f} %"
    axis.set(xlabel="epoch", ylabel="mean cost", title=f"Cost{ending}", xlim=(0, len(epochs) + 0.5))
    axis.set_ylim(0, 1.05 * axis.get_ylim()[1])
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axis.legend(fontsize=8)


PANELS: tuple[tuple[tuple[str, ...], str, str, str], ...] = (
    (("noise_scale",), "Gradient noise scale", "log", "examples"),
    (("norm_test", "inner_product_test", "orthogonality_test"), "Tests of the batch size", "log", "smallest threshold"),
    (("gradient_norm",), "Gradient norm", "log", "norm of the mean gradient"),
    (("update_ratio",), "Update ratio", "log", "|update| / |parameters|"),
    (("update_size",), "Update size", "log", "|update|"),
    (("distance",), "Distance from the start", "linear", "|parameters - start|"),
    (("saturation",), "Flat units (saturation), per example", "linear", "% of a layer's units"),
    (("dead_units",), "Dead units: flat on a whole batch", "linear", "% of a layer's units"),
    (("gsnr",), "Mean gradient signal-to-noise ratio", "log", "squared mean / variance"),
    (("early_stopping",), "Early stopping: above 0, stop", "symlog", "1 - W gsnr"),
)
"""What is drawn against the steps: names, title, scale and unit."""


def smooth(values: Float[np.ndarray, "steps ..."], points: int = POINTS) -> Float[np.ndarray, "points ..."]:
    """Means of equally long stretches; those over finite values alone, NaN where there is none."""
    return np.stack([finite_mean(stretch) for stretch in np.array_split(values, min(points, len(values)))])


def draw(axis: Axes, figures: Figures, names: tuple[str, ...], title: str, scale: str, unit: str) -> None:
    """A panel of quantities against the epochs, a line each or a layer."""
    for name in names:
        values = figures.per_step(name)
        if values is None:
            continue
        if name == "noise_scale":
            variance, square = smooth(values, 50).T
            y = np.where(square > 0, variance / np.where(square > 0, square, 1), np.nan)[:, None]
            labels = ["tr Sigma / |G|^2, means over a 50th of the run\n(gaps: |G|^2 is lost in noise)"]
            axis.axhline(figures.batch, color="C3", ls="--", lw=1, label=f"the batch size, {figures.batch:,}")
        elif values.ndim == 1:
            y, labels = smooth(values)[:, None], [name.replace("_", " ")]
        else:
            y, labels = smooth(values), [f"layer {l + 1}" for l in range(values.shape[1])]
        if unit.startswith("%"):
            y = 100 * y
        if scale == "log":
            y = np.where(y > 0, y, np.nan)
        x = np.linspace(0, len(figures.recordings), 2 * len(y) + 1)[1::2]
        widths = np.linspace(2.6, 1.3, len(labels)) if len(labels) > 1 else [1.3]  # where lines coincide, all are seen
        for column, label, width in zip(y.T, labels, widths, strict=True):
            axis.plot(x, column, lw=width, marker="o" if len(y) < FEW else "", ms=2 * width, label=label)
    axis.set(xlabel="epoch", ylabel=unit, title=title, yscale=scale, xlim=(0, len(figures.recordings)))
    if unit.startswith("%"):
        axis.set_ylim(-2, 102)
    if scale == "symlog":  # linear near the 0 that is asked about
        axis.axhline(0, color="0.6", lw=0.8)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=7, ncols=2 if len(axis.lines) > 4 else 1, framealpha=1)


def histogram(axis: Axes, figures: Figures) -> None:
    """The mean gradient's elements in the last epoch, a line a layer."""
    counted = figures.recordings[-1]["gradient_histogram"].sum(axis=0, dtype=np.float64)
    shares = 100 * counted / counted.sum(axis=1, keepdims=True)
    middle = np.sqrt(np.array(EDGES[1:]) * EDGES[:-1])
    x = np.concatenate([[EDGES[0] / 3], middle, [EDGES[-1] * 3]])
    for l, row in enumerate(shares, start=1):
        axis.step(x, row, where="mid", lw=1.3, label=f"layer {l}")
    axis.set(
        xscale="log", xlabel="|element|; at the ends: all below 1e-8, from 10 up", ylabel="% of a layer's elements"
    )
    axis.set_title("Elements of the mean gradient, last epoch")
    axis.legend(fontsize=7)


def pictures(figures: Figures) -> Int[np.ndarray, " pictured"]:
    """The examples to show, if they are images: of a network that learned, the first whose labels it contradicts."""
    if not figures.ranking.size or len(figures.shape) != 2 or stuck(figures):
        return np.zeros(0, np.int64)
    return contradicted(figures)[:PICTURES]


def show(strip: SubFigure, figures: Figures, first: Int[np.ndarray, " pictured"]) -> None:
    """Their pictures, with index, label, and what the network says."""
    said = figures.run.predict(figures.examples.inputs[first])
    strip.suptitle(
        "The training examples likeliest to be mislabelled, by loss: index, given label, what the network says", size=11
    )
    for axis, position, answer in zip(strip.subplots(1, PICTURES, squeeze=False)[0], first, said, strict=False):
        axis.imshow(figures.examples.inputs[position].reshape(figures.shape), cmap="gray_r")
        label = figures.examples.targets[position]
        axis.set_title(f"{figures.indices[position]}\nlabel {label}, says {answer}", size=9)
    for axis in strip.axes:
        axis.set_axis_off()
