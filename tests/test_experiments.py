"""Every experiment file says what it is, fits its data and learns."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

import jaxmlp
from jaxmlp import Dataset
from jaxmlp.training.files import read_experiment
from jaxmlp.views.plots import png

pytestmark = pytest.mark.own_precision  # training is in float32

PATHS = sorted((Path(__file__).parents[1] / "experiments").glob("*.py"))
PRIVATE = [path for path in PATHS if path.stem == "dp_sgd"]
SWEEPS = [path for path in PATHS if path.stem in ("batch_size", "how_much_data")]
LARGE = 10**6
"""Parameters from which on a network is trained on fewer digits here."""


@cache
def some_digits(source: str, count: int = 12_000) -> Dataset:
    mnist = jaxmlp.load_data(source)
    return replace(mnist, train=mnist.train.take(slice(count)), test=mnist.test.take(slice(1_000)))


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_the_docstring_gives_command_source_accuracy_and_time(path: Path) -> None:
    about = read_experiment(path).about
    command = "sweep" if path in SWEEPS else "train"
    for part in (f"\n    jaxmlp {command} experiments/{path.name}\n", "\nSource: ", "\nExpected: ", " % ", " s "):
        assert part in about


@pytest.mark.usefixtures("optax_promotes")
@pytest.mark.parametrize("path", [path for path in PATHS if path not in PRIVATE], ids=lambda path: path.stem)
@pytest.mark.parametrize("gradient", ["manual", "auto"])
def test_it_learns(path: Path, gradient: str) -> None:
    experiment = read_experiment(path).experiment
    large = experiment.network.parameters > LARGE
    brief = replace(experiment, train=replace(experiment.train, epochs=5, gradient=gradient))
    if large:
        brief = replace(brief, data=replace(brief.data, validation=100))
    run = jaxmlp.fit(brief, some_digits(experiment.data.source, 2_000 if large else 12_000))
    assert run.result.test_accuracy > 0.8


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_a_sweep_is_trained_and_drawn(path: Path) -> None:
    file = read_experiment(path)
    seeds = [one for one in file.sweep(file.experiment) if one.train.seed < 2 and (one.data.examples or 0) <= 1_000]
    some = [replace(one, train=replace(one.train, epochs=2)) for one in seeds[:: 3 if len(seeds) > 12 else 1]]
    figure = file.figure([jaxmlp.fit(one, some_digits("mnist")) for one in some])
    assert figure.axes
    assert all(axes.lines for axes in figure.axes)
    png(figure)


@pytest.mark.parametrize("path", PRIVATE, ids=lambda path: path.stem)
def test_it_learns_privately(path: Path) -> None:
    experiment = read_experiment(path).experiment
    # a fifth of the examples, in batches of a fifth: the noise weighs five times as much at the same epsilon
    train = replace(experiment.train, epochs=10, batch_size=experiment.train.batch_size // 5)
    private = replace(experiment, train=train, privacy=replace(experiment.privacy, epsilon=10.0))
    assert jaxmlp.fit(private, some_digits(experiment.data.source)).result.test_accuracy > 0.8
