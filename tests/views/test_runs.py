import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from rich.table import Table

from jaxmlp import Data, Experiment, Network, Optimizer, Train
from jaxmlp.training.records import EpochRecord, Result
from jaxmlp.training.run import Kept
from jaxmlp.views.runs import run_figure, run_table, runs_table, terminal_curves, titles

EXPERIMENT = Experiment(Network((20, 8, 3)), train=Train(epochs=3))
HISTORY = tuple(EpochRecord(e, 1 / e, 2 / e, 0.5 + e / 10, 0.1, 1e4) for e in range(1, 4))
RESULT = Result(0.875, 0.1, 0.8, 0.2, 3, 195, 1.0, 2.0)
FINISHED = Kept(EXPERIMENT, True, {"command": ["jaxmlp", "train", "x.py"], "git": "abc+"}, HISTORY, RESULT)
BROKEN = Kept(replace(EXPERIMENT, optimizer=Optimizer("adam", 0.01)), True, {}, HISTORY[:2], None)


def text_of(table: Table) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(table)
    return console.file.getvalue()


def test_runs_are_listed_with_the_settings_in_which_they_differ_and_their_results() -> None:
    text = text_of(runs_table({"a": (FINISHED, False), "b": (BROKEN, False), "c": (BROKEN, True)}))
    for part in ("finished", "stopped", "training", "2 of 3 epochs", "optimizer", "learning_rate", "adam", "0.01"):
        assert part in text
    assert "87.50 %" in text
    assert "70.00 %" in text
    assert "train.epochs" not in text


def test_why_a_run_ended_and_what_it_skipped_are_said() -> None:
    history = tuple(replace(record, skipped=2) for record in HISTORY[:2])
    kept = Kept(EXPERIMENT, True, {}, history, None, {"kind": "diverged", "message": "the loss is nan"})
    text = text_of(run_table(kept, False, Path("a")))
    for part in ("diverged, 2 of 3 epochs", "the loss is nan", "4 steps"):
        assert part in text
    assert "the loss is nan" not in text_of(run_table(kept, True, Path("a")))


def test_what_a_sweeps_names_say_is_not_said_twice() -> None:
    seeds = [replace(FINISHED, experiment=replace(EXPERIMENT, train=Train(epochs=3, seed=seed))) for seed in (0, 1)]
    told = text_of(runs_table({f"all/seed={i}": (kept, False) for i, kept in enumerate(seeds)}))
    titles = [[cell.strip() for cell in line.split("┃")[1:-1]] for line in told.splitlines() if "┃" in line]
    assert titles == [["run", "state", "validation", "test"]]
    assert "seed" in text_of(runs_table({"a/seed=0": (seeds[0], False), "b": (seeds[1], False)})).splitlines()[1]


def test_a_setting_is_not_headed_as_a_result_is() -> None:
    other = replace(FINISHED, experiment=replace(EXPERIMENT, data=Data(validation=7)))
    head = text_of(runs_table({"a": (FINISHED, False), "b": (other, False)})).splitlines()[1]
    assert [cell.strip() for cell in head.split("┃")[1:-1]] == ["run", "state", "data.validation", "validation", "test"]


def test_a_narrow_table_has_of_each_run_what_tells_it_from_most() -> None:
    names = {"a": (FINISHED, False), "optimizer=adam": (BROKEN, False), "c": (FINISHED, True)}
    text = text_of(runs_table(names, narrow=True))
    lines = text.splitlines()
    assert "most: optimizer sgd, learning_rate 1" in text
    cells = {parts[1].strip(): parts[3].strip() for parts in (line.split("│") for line in lines) if len(parts) > 3}
    assert cells == {"a": "", "optimizer=adam": "learning_rate 0.01", "": "", "c": ""}
    assert "unlike most" in lines[1]
    assert "unlike" not in text_of(runs_table({"a": (FINISHED, False)}, narrow=True))
    of_two = text_of(runs_table({"a": (FINISHED, False), "b": (BROKEN, False)}, narrow=True))
    assert "optimizer sgd, learning_rate 1 " in of_two  # neither is most
    assert "optimizer adam, learning_rate 0.01 " in of_two


def test_headings_are_short_where_no_two_are_alike() -> None:
    fields = ["network.sizes", "optimizer.name", "record.every", "schedule.every"]
    assert titles(fields) == ["sizes", "optimizer", "record.every", "schedule.every"]


def test_a_single_run_differs_in_nothing() -> None:
    text = text_of(runs_table({"a": (FINISHED, False)}))
    assert "." not in text.splitlines()[1]


def test_one_run_is_shown_with_its_settings_and_how_it_stands() -> None:
    text = text_of(run_table(FINISHED, False, Path("runs/a")))
    for part in ("runs/a", "finished", "20 8 3", "jaxmlp train x.py", "abc+", "3, validation 80.00 %", "87.50 %"):
        assert part in text


def test_a_regression_shows_losses_for_accuracies() -> None:
    history = tuple(replace(record, validation_accuracy=None) for record in HISTORY)
    kept = Kept(EXPERIMENT, False, {}, history, replace(RESULT, test_accuracy=None))
    assert "0.6667" in text_of(runs_table({"a": (kept, False)}))
    assert len(run_figure(kept, np.zeros(0, np.float32), "a").axes) == 1  # no empty one beside the losses


def test_the_curves_are_drawn_in_characters_without_colours() -> None:
    text = terminal_curves(HISTORY, 60)
    for part in ("loss", "epoch", "training", "validation"):
        assert part in text
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 60


def test_the_figure_has_every_steps_loss_and_every_epochs() -> None:
    losses = np.linspace(1, 0.1, 30, dtype=np.float32)
    loss, accuracy = run_figure(FINISHED, losses, "a").axes
    steps, training, validation = loss.lines
    np.testing.assert_array_equal(steps.get_ydata(), losses)
    assert steps.get_xdata()[-1] == 3
    assert [*training.get_ydata()] == [record.train_loss for record in HISTORY]
    assert [*validation.get_ydata()] == [record.validation_loss for record in HISTORY]
    assert [*accuracy.lines[0].get_ydata()] == [60, 70, 80]


def test_of_many_steps_each_point_is_the_mean_of_as_many() -> None:
    losses = np.tile(np.float32([1, 3]), 285)
    steps = run_figure(FINISHED, losses, "a").axes[0].lines[0]
    assert steps.get_label() == "2 steps' mean"
    np.testing.assert_array_equal(steps.get_ydata(), np.full(285, 2))


def test_a_run_without_validation_has_one_curve() -> None:
    history = tuple(replace(record, validation_loss=None, validation_accuracy=None) for record in HISTORY)
    kept = Kept(replace(EXPERIMENT, data=Data(validation=0)), True, {}, history, None)
    assert "validation" not in terminal_curves(history, 60)
    (axes,) = run_figure(replace(kept, result=RESULT), np.zeros(0, np.float32), "a").axes
    assert len(axes.lines) == 1
    assert "best epoch" not in text_of(run_table(kept, False, Path("a")))


@pytest.mark.parametrize(
    ("losses", "scale"),
    [
        ((1.0, 0.9997), "linear"),
        ((1.9, 0.55), "linear"),
        ((4.9, 0.4), "log"),
        ((3.0, 0.2), "log"),
        ((1e3, 1e-9), "log"),
        ((1.0, 0.0), "linear"),
        ((1.0, -2.0), "linear"),
    ],
)
def test_the_axis_of_the_losses_can_be_read(losses: tuple[float, float], scale: str) -> None:
    history = tuple(EpochRecord(e, loss, None, None, 0.1, 1e4) for e, loss in enumerate(losses, start=1))
    figure = run_figure(Kept(EXPERIMENT, False, {}, history, None), np.zeros(0, np.float32), "a")
    (axes,) = figure.axes
    assert axes.get_yscale() == scale
    figure.canvas.draw()
    low, high = axes.get_ylim()
    labels = [tick.get_text() for tick in axes.get_yticklabels() if low <= tick.get_position()[1] <= high]
    assert len([label for label in labels if label]) >= 3
    assert not any("10^" in label for label in labels)


def test_the_score_of_a_regression_is_said_to_be_a_loss() -> None:
    regression = replace(FINISHED, labelled=False, result=replace(RESULT, test_accuracy=None))
    assert "loss 0.1" in text_of(runs_table({"a": (regression, False)}))
