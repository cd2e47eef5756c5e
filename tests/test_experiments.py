"""Every experiment file says what it is, fits its data and learns."""

from dataclasses import replace
from pathlib import Path

import pytest

import jaxmlp
from jaxmlp import Dataset
from jaxmlp.training.files import read_experiment

PATHS = sorted((Path(__file__).parents[1] / "experiments").glob("*.py"))


@pytest.fixture(scope="module")
def some_digits() -> Dataset:
    mnist = jaxmlp.load_data("mnist")
    return replace(mnist, train=mnist.train.take(slice(12_000)), test=mnist.test.take(slice(1_000)))


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_the_docstring_gives_command_source_accuracy_and_time(path: Path) -> None:
    _, about = read_experiment(path)
    for part in (f"\n    jaxmlp train experiments/{path.name}\n", "\nSource: ", "\nExpected: ", " % ", " s "):
        assert part in about


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
@pytest.mark.parametrize("gradient", ["manual", "auto"])
def test_it_learns(path: Path, gradient: str, some_digits: Dataset) -> None:
    experiment, _ = read_experiment(path)
    train = replace(experiment.train, epochs=5, gradient=gradient)
    run = jaxmlp.fit(replace(experiment, train=train), some_digits)
    assert run.result.test_accuracy > 0.8
