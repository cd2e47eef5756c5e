"""Plots, as matplotlib figures."""

import io
import warnings

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxmlp.training.compare import Comparison


def png(figure: Figure) -> bytes:
    """The figure as a PNG file; characters that its font has not are boxes, without a warning."""
    page = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        figure.savefig(page, dpi=110)
    return page.getvalue()


FEW = 20
"""Points that are marked: of a single one no line is seen."""


LEAST = 0.02
"""The share of a curve's size that its axis spans at least: what differs by rounding is drawn alike."""


def at_least(axes: Axes, share: float) -> None:
    """Widens the y axis to span that share of what is drawn."""
    low, high = axes.get_ylim()
    middle, half = (low + high) / 2, share * max(abs(low), abs(high)) / 2
    if high - low < 2 * half:
        axes.set_ylim(middle - half, middle + half)


def comparison_figure(comparison: Comparison, title: str) -> Figure:
    """Both curves, the drift of the parameters step by step, and the time of a step."""
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    curves, drift, times = figure.subplots(1, 3, width_ratios=[1, 1.3, 0.8])
    figure.suptitle(title, parse_math=False)
    epochs = [pair.epoch for pair in comparison.epochs]
    names, styles = ("manual", "auto"), ("-", "--")

    for i, (name, style) in enumerate(zip(names, styles, strict=True)):
        loss = [pair.train_loss[i] for pair in comparison.epochs]
        dot = "os"[i] if len(epochs) < FEW else ""
        curves.plot(epochs, loss, style, marker=dot, ms=9 - 4 * i, lw=3 - 1.5 * i, label=name)
    curves.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    curves.set(xlabel="epoch", ylabel="training loss", title="The two curves", xlim=(0.5, epochs[-1] + 0.5))
    at_least(curves, LEAST)
    curves.legend()

    steps = np.arange(1, len(comparison.drift) + 1)
    shown = np.unique(np.geomspace(1, len(steps), 500).astype(int)) - 1
    for name, column in zip(comparison.leaves, comparison.drift.T, strict=True):
        dot = "o" if len(shown) < FEW else ""
        drift.plot(steps[shown], np.where(column > 0, column, np.nan)[shown], marker=dot, ms=3, lw=1, label=name)
    # no logarithm shows two runs that are the same to the last bit
    scale = "log" if comparison.drift.any() else "linear"
    drift.set(xscale="log", yscale=scale, xlabel="step", ylabel="|p manual - p auto| / |p auto|", title="Drift")
    drift.legend(fontsize=7, ncols=2)

    times.boxplot(1e6 * comparison.step_seconds, widths=0.6, whis=(10, 90), showfliers=False)
    times.set_xticks([1, 2], names)
    times.set(ylabel="microseconds", title="Time of a step", ylim=(0, None))
    times.set_xlabel(f"median, quartiles, 10 and 90 % of {len(comparison.step_seconds)} turns", size=8)
    return figure
