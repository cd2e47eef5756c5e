"""Every experiment file says what it is, fits its data and learns."""

import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import jaxmlp
from jaxmlp import Dataset, Experiment, Run
from jaxmlp.training.files import read_experiment
from jaxmlp.training.records import EpochRecord, Result
from jaxmlp.views.plots import png

pytestmark = pytest.mark.own_precision  # training is in float32

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
PATHS = sorted(EXPERIMENTS.glob("*.py"))
PRIVATE = [path for path in PATHS if path.stem == "dp_sgd"]
SWEEPS = [path for path in PATHS if path.stem in ("batch_size", "how_much_data")]
PUBLIC = [path for path in PATHS if path not in PRIVATE]
LARGE = [path for path in PUBLIC if read_experiment(path).experiment.network.parameters > 10**6]
"""Trained on fewer digits here, and by hand alone."""


@cache
def some_digits(source: str, count: int) -> Dataset:
    mnist = jaxmlp.load_data(source)
    return replace(mnist, train=mnist.train.take(slice(count)), test=mnist.test.take(slice(1_000)))


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_the_docstring_gives_command_source_accuracy_and_time(path: Path) -> None:
    about = read_experiment(path).about
    command = "sweep" if path in SWEEPS else "train"
    for part in (f"\n    jaxmlp {command} experiments/{path.name}\n", "\nSource: ", "\nExpected: "):
        assert part in about
    expected = about.partition("\nExpected: ")[2]
    assert re.search(r"\d %", expected)
    assert re.search(r"[\d,]+ s\b", expected)


@pytest.mark.usefixtures("optax_promotes")
@pytest.mark.parametrize(
    ("path", "gradient"),
    [(path, "manual") for path in PUBLIC] + [(path, "auto") for path in PUBLIC if path not in LARGE],
    ids=lambda value: value.stem if isinstance(value, Path) else value,
)
def test_it_learns(path: Path, gradient: str) -> None:
    experiment = read_experiment(path).experiment
    train, data = replace(experiment.train, epochs=5, gradient=gradient), replace(experiment.data, validation=100)
    digits = some_digits(experiment.data.source, 2_000 if path in LARGE else 6_000)
    assert jaxmlp.fit(replace(experiment, train=train, data=data), digits).result.test_accuracy > 0.8


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_a_sweep_is_trained_and_drawn(path: Path) -> None:
    file = read_experiment(path)
    seeds = [one for one in file.sweep(file.experiment) if one.train.seed < 2 and (one.data.examples or 0) <= 1_000]
    some = [replace(one, train=replace(one.train, epochs=2)) for one in seeds[:: 3 if len(seeds) > 12 else 1]]
    figure = file.figure([jaxmlp.fit(one, some_digits("mnist", 6_000)) for one in some])
    assert all(axes.lines for axes in figure.axes)
    png(figure)


def made_up(experiment: Experiment, accuracies: list[float], seconds: float) -> Run:
    """A run of that experiment with that history, and the last of its accuracies on the test set too."""
    history = [
        EpochRecord(epoch, 0.1, 0.1, accuracy, seconds, 1.0) for epoch, accuracy in enumerate(accuracies, start=1)
    ]
    result = Result(accuracies[-1], 0.1, accuracies[-1], 0.1, len(history), 1, 1.0, 1.0)
    return Run(replace(experiment, train=replace(experiment.train, epochs=len(history))), True, (), (*history,), result)


def test_the_batch_sizes_picture_has_the_best_rate_at_equal_examples_and_at_equal_time() -> None:
    file = read_experiment(EXPERIMENTS / "batch_size.py")
    runs = []
    for one in file.sweep(file.experiment):
        slow, low = one.train.batch_size in (1, 10_000, 55_000), one.optimizer.learning_rate < 3
        if (low, one.train.seed) == (False, 2):
            continue  # diverged: the rate is not to be chosen, however well it does
        late = 0.9 if low else 0.99
        runs.append(made_up(one, ([0.5] * 8 + [late] * 52)[: one.train.epochs], 0.25 if slow else 0.125))
    left, right = file.figure(runs).axes
    sizes = [1, 10, 100, 1_000, 10_000, 55_000]
    equal_examples, equal_time = (
        line for line in left.lines if len(line.get_xdata()) == 6 and line.get_marker() == "o"
    )
    np.testing.assert_array_equal(equal_examples.get_xdata(), sizes)
    np.testing.assert_allclose(equal_examples.get_ydata(), 50)
    # in 2 s there is time for 16 epochs, or for 8 of the slow batches
    np.testing.assert_allclose(equal_time.get_ydata(), [50, 10, 10, 10, 50, 50])
    np.testing.assert_allclose(right.lines[0].get_ydata(), [0.25, 0.125, 0.125, 0.125, 0.25, 0.25])


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_fewer_epochs_make_all_of_a_sweeps_runs_shorter(path: Path) -> None:
    file = read_experiment(path)
    few = replace(file.experiment, train=replace(file.experiment.train, epochs=file.experiment.train.epochs // 4))
    ours, theirs = ([one.train.epochs for one in file.sweep(each)] for each in (few, file.experiment))
    assert all(one < 0.3 * other for one, other in zip(ours, theirs, strict=True))


def test_of_fewer_examples_the_largest_batch_has_all() -> None:
    file = read_experiment(EXPERIMENTS / "batch_size.py")
    few = replace(file.experiment, data=replace(file.experiment.data, examples=2_000))
    assert {one.train.batch_size for one in file.sweep(few)} == {1, 10, 100, 1_000, 2_000}


def test_the_datas_picture_has_the_mean_and_the_deviation_of_the_test_error() -> None:
    file = read_experiment(EXPERIMENTS / "how_much_data.py")
    runs = [
        made_up(one, [1 - 10 / one.data.examples - 0.01 * (one.train.seed - 2)], 1.0)
        for one in file.sweep(file.experiment)
    ]
    (axes,) = file.figure(runs).axes
    small = axes.lines[0]
    examples = [100, 300, 1_000, 3_000, 10_000, 30_000, 60_000]
    np.testing.assert_array_equal(small.get_xdata(), examples)
    np.testing.assert_allclose(small.get_ydata(), [1_000 / n for n in examples])


@pytest.mark.parametrize("path", PRIVATE, ids=lambda path: path.stem)
def test_it_learns_privately(path: Path) -> None:
    experiment = read_experiment(path).experiment
    # a fifth of the examples, in batches of a fifth: the noise weighs five times as much at the same epsilon
    train = replace(experiment.train, epochs=10, batch_size=experiment.train.batch_size // 5)
    private = replace(experiment, train=train, privacy=replace(experiment.privacy, epsilon=10.0))
    assert jaxmlp.fit(private, some_digits(experiment.data.source, 12_000)).result.test_accuracy > 0.8
