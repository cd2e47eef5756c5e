"""Runs as a person looks at them afterwards: a table of many, the curves of one."""

import math
from collections import Counter
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from rich.markup import escape
from rich.table import Column, Table

from jaxmlp.training.records import EpochRecord, best
from jaxmlp.training.run import Kept
from jaxmlp.training.sweeps import differing, file_name, settings_of, shown, titles
from jaxmlp.views.plots import LEAST, at_least


def state_of(kept: Kept, training: bool) -> str:
    """Of a run: finished, training, or stopped, interrupted or diverged after so many epochs."""
    if kept.result is not None:
        return "finished"
    state = "training" if training else escape(kept.stopped.get("kind", "stopped"))
    return f"{state}, {len(kept.history)} of {kept.experiment.train.epochs} epochs"


def runs_table(runs: dict[str, tuple[Kept, bool]], narrow: bool = False) -> Table:
    """Runs by their names, each with whether a process trains it: the settings that differ among them, and results.

    A setting that the names of all runs tell, as a sweep's do, has no column. A narrow table has one column of
    settings, in which each run has those that it doesn't share with most.
    """
    settings = {name: settings_of(kept.experiment) for name, (kept, _) in runs.items()}
    every = differing([*settings.values()])
    titled = {field: field if title in OWN else title for field, title in zip(every, titles(every), strict=True)}
    cells = {name: {title: one.get(field, "") for field, title in titled.items()} for name, one in settings.items()}
    untold = {title for name, own in cells.items() for title in own if not tells(name, title, own[title])}
    cells = {name: {title: own[title] for title in own if title in untold} for name, own in cells.items()}
    table = Table(Column(OWN[0], overflow="fold"), Column(OWN[1], no_wrap=True), caption_justify="left")
    if narrow and untold:
        usual = most_common(cells)
        table.caption = escape("most: " + listed(usual)) if usual else None
        for name, own in cells.items():
            unlike = {title: own[title] for title in own if own[title] != usual.get(title)}
            cells[name] = {"unlike most": listed({t: v for t, v in unlike.items() if not tells(name, t, v)})}
    for title in dict.fromkeys(title for own in cells.values() for title in own):
        table.add_column(title, overflow="fold")
    for title in OWN[2:]:
        table.add_column(title, no_wrap=True, justify="right")
    for name, (kept, training) in runs.items():
        last = kept.history[-1] if kept.history else None
        validation = "" if last is None else score(last.validation_accuracy, last.validation_loss)
        test = "" if kept.result is None else score(kept.result.test_accuracy, kept.result.test_loss)
        state = state_of(kept, training).replace(", ", "\n")
        table.add_row(escape(name), state, *(escape(in_brief(*cell)) for cell in cells[name].items()), validation, test)
    return table


def in_brief(title: str, value: str) -> str:
    """A setting's value, but of many recorded quantities the number."""
    count = len(value.split())
    return f"{count} quantities" if title.endswith("quantities") and count > 3 else value


OWN = ("run", "state", "validation", "test")
"""The columns that are no settings."""


def most_common(cells: dict[str, dict[str, str]]) -> dict[str, str]:
    """The settings that more than half of the runs have."""
    runs, usual = [*cells.values()], {}
    for title in runs[0]:
        value, count = Counter(own[title] for own in runs).most_common(1)[0]
        if 2 * count > len(runs):
            usual[title] = value
    return usual


def listed(settings: dict[str, str]) -> str:
    return ", ".join(f"{title} {in_brief(title, value) or '-'}" for title, value in settings.items())


def tells(name: str, title: str, value: str) -> bool:
    """Whether a run's name has that setting, as a sweep's does: all/batch_size=10,seed=0."""
    return f"{title}={file_name(value)}" in name.rpartition("/")[2].split(",")


def score(accuracy: float | None, loss: float | None) -> str:
    """The accuracy, or of a regression the loss, and that it is one."""
    if accuracy is not None:
        return f"{100 * accuracy:.2f} %"
    return "" if loss is None else f"loss {loss:.4g}"


def run_table(kept: Kept, training: bool, folder: Path) -> Table:
    """One run: its settings and how it stands."""
    table = Table(show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row("run folder", escape(str(folder)))
    for name, value in settings_of(kept.experiment).items():
        table.add_row(name, escape(value))
    table.add_row("trained on", escape(str(kept.data.get("name", ""))))
    for name in ("command", "git", "devices"):
        if kept.environment.get(name):
            table.add_row(name, escape(shown(kept.environment[name])))
    table.add_row("state", state_of(kept, training))
    if kept.stopped and not training:
        table.add_row("why", escape(kept.stopped.get("message", "")))
    skipped = sum(record.skipped or 0 for record in kept.history)
    if skipped:
        table.add_row("skipped", f"{skipped:,} steps")
    chosen = best(kept.history)
    if chosen is not None:
        record = kept.history[chosen - 1]
        table.add_row("best epoch", f"{chosen}, validation {score(record.validation_accuracy, record.validation_loss)}")
    if kept.result is not None:
        table.add_row("test", score(kept.result.test_accuracy, kept.result.test_loss))
    return table


def terminal_curves(history: tuple[EpochRecord, ...], width: int) -> str:
    """The loss on the training and the validation examples, epoch by epoch, in characters."""
    import plotext

    plotext.clear_figure()
    plotext.plotsize(width, 16)
    plotext.theme("clear")
    epochs = [record.epoch for record in history]
    found = curves(history)
    for (name, losses), marker in zip(found.items(), ("braille", "dot"), strict=False):
        plotext.plot(epochs, losses, label=name, marker=marker)
    if min(loss for losses in found.values() for loss in losses if not math.isnan(loss)) > 0:
        plotext.yscale("log")
    plotext.xticks(sorted({round(epoch) for epoch in np.linspace(epochs[0], epochs[-1], 6)}))
    plotext.title("loss")
    plotext.xlabel("epoch")
    drawn: str = plotext.uncolorize(plotext.build())
    return drawn


def curves(history: tuple[EpochRecord, ...]) -> dict[str, list[float]]:
    """The losses that there are, by the examples that they are of."""
    found = {
        "training": [record.train_loss for record in history],
        "validation": [math.nan if record.validation_loss is None else record.validation_loss for record in history],
    }
    return {name: losses for name, losses in found.items() if np.isfinite(losses).any()}


POINTS = 400
"""Of the curve of the steps' losses, at most: where there are more steps, each is the mean of several."""


STEEP = 10
"""How many times its least a loss has to come to for a logarithmic axis: within less, a linear one reads as well."""


def run_figure(kept: Kept, losses: Float[np.ndarray, " steps"], title: str) -> Figure:
    """The losses step by step and epoch by epoch, and where it was measured, the validation examples' accuracy."""
    known = {r.epoch: 100 * r.validation_accuracy for r in kept.history if r.validation_accuracy is not None}
    figure = Figure(figsize=(12 if known else 7, 3.8), layout="constrained")
    loss = figure.add_subplot(1, 2 if known else 1, 1)
    figure.suptitle(title, parse_math=False)
    epochs = [record.epoch for record in kept.history]
    if losses.size:
        each = -(-losses.size // POINTS)
        parts = [losses[start : start + each] for start in range(0, losses.size, each)]
        ends = np.cumsum([part.size for part in parts]) * len(epochs) / losses.size
        label = "every step" if each == 1 else f"{each:,} steps' mean"
        loss.plot(ends, [part.mean() for part in parts], lw=0.8, color="0.6", label=label)
    for name, values in curves(kept.history).items():
        loss.plot(epochs, values, marker="o", ms=3, label=name)
    loss.set(xlabel="epoch", ylabel="loss", xlim=(0, None))
    drawn = np.array([y for line in loss.lines for y in np.asarray(line.get_ydata()) if np.isfinite(y)])
    if drawn.size and drawn.min() > 0 and drawn.max() > STEEP * drawn.min():
        loss.set_yscale("log")
        loss.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if drawn.max() < 1000 * drawn.min() else (1,)))
        loss.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        loss.yaxis.set_minor_formatter(NullFormatter())
    at_least(loss, LEAST)
    loss.legend()
    if known:
        accuracy = figure.add_subplot(1, 2, 2)
        accuracy.plot([*known], [*known.values()], marker="o", ms=3, color="C1", label="validation")
        if kept.result is not None and kept.result.test_accuracy is not None:
            accuracy.axhline(100 * kept.result.test_accuracy, ls="--", color="0.4", label="test, at the end")
        accuracy.set(xlabel="epoch", ylabel="accuracy, %", xlim=(0, len(epochs) + 0.5))
        accuracy.legend()
    for axes in figure.axes:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure
