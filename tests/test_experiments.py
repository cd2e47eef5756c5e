"""Every experiment file says what it is, fits its data and learns."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

import jaxmlp
from jaxmlp import Dataset
from jaxmlp.training.files import read_experiment

pytestmark = pytest.mark.own_precision  # training is in float32

PATHS = sorted((Path(__file__).parents[1] / "experiments").glob("*.py"))
PRIVATE = [path for path in PATHS if path.stem == "dp_sgd"]


@cache
def some_digits(source: str) -> Dataset:
    mnist = jaxmlp.load_data(source)
    return replace(mnist, train=mnist.train.take(slice(12_000)), test=mnist.test.take(slice(1_000)))


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_the_docstring_gives_command_source_accuracy_and_time(path: Path) -> None:
    _, about = read_experiment(path)
    for part in (f"\n    jaxmlp train experiments/{path.name}\n", "\nSource: ", "\nExpected: ", " % ", " s "):
        assert part in about


@pytest.mark.usefixtures("optax_promotes")
@pytest.mark.parametrize("path", [path for path in PATHS if path not in PRIVATE], ids=lambda path: path.stem)
@pytest.mark.parametrize("gradient", ["manual", "auto"])
def test_it_learns(path: Path, gradient: str) -> None:
    experiment, _ = read_experiment(path)
    train = replace(experiment.train, epochs=5, gradient=gradient)
    run = jaxmlp.fit(replace(experiment, train=train), some_digits(experiment.data.source))
    assert run.result.test_accuracy > 0.8


@pytest.mark.parametrize("path", PRIVATE, ids=lambda path: path.stem)
def test_it_learns_privately(path: Path) -> None:
    experiment, _ = read_experiment(path)
    # a fifth of the examples, in batches of a fifth: the noise weighs five times as much at the same epsilon
    train = replace(experiment.train, epochs=10, batch_size=experiment.train.batch_size // 5)
    private = replace(experiment, train=train, privacy=replace(experiment.privacy, epsilon=10.0))
    assert jaxmlp.fit(private, some_digits(experiment.data.source)).result.test_accuracy > 0.8
