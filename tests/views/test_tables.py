import io
from dataclasses import replace
from pathlib import Path

import jax
import pytest
from rich.console import Console
from rich.table import Table

from jaxmlp import Data, Dataset, Experiment, Network, Optimizer, Schedule, Train
from jaxmlp.training.records import Result
from jaxmlp.views.tables import device_table, heading, recipe, result_table

RESULT = Result(0.9469, 0.085, 0.9432, 0.089, 30, 13_002, 3.2, 75.0)


def text_of(table: Table) -> str:
    console = Console(file=io.StringIO(), width=100)
    console.print(table)
    return console.file.getvalue()


def test_the_closing_table_has_the_results_and_the_folder() -> None:
    text = text_of(result_table(RESULT, "auto", Path("runs/lesson")))
    for part in ("94.69 %", "0.0850", "94.32 %", "13,002", "30 epochs in 3.2 s", "1:15", "runs/lesson"):
        assert part in text


def test_a_regression_has_no_accuracy() -> None:
    assert "accuracy" not in text_of(
        result_table(replace(RESULT, test_accuracy=None, validation_accuracy=None), "manual", Path())
    )


def test_a_regression_has_both_losses() -> None:
    text = text_of(result_table(replace(RESULT, test_accuracy=None, validation_accuracy=None), "manual", Path()))
    assert ("0.0850" in text, "0.0890" in text) == (True, True)


def test_the_heading_says_what_is_trained_on_what(digits: Dataset) -> None:
    optimizer = Optimizer("sgd", 0.5, (("momentum", 0.9),), max_norm=2.0)
    text = heading(Experiment(Network((20, 8, 3)), optimizer=optimizer), digits, jax.devices()[0])
    assert "\nsgd, learning_rate 0.5, momentum 0.9, max_norm 2, batches of 32\n" in text
    assert "20-8-3, sigmoid hidden, sigmoid output, squared_error: 195 parameters" in text


@pytest.mark.parametrize(("size", "said"), [(163, False), (164, True)])
def test_the_heading_says_where_a_batch_is_all_examples(size: int, said: bool, digits: Dataset) -> None:
    experiment = Experiment(Network((20, 8, 3)), Data(validation=40), train=Train(batch_size=size))
    text = heading(experiment, digits, jax.devices()[0])
    assert ("163 training (less than a batch: an epoch is one step), 40 validation" in text) == said


def test_the_heading_leaves_out_what_nothing_comes_of() -> None:
    constant = Schedule(factor=0.5, end=0.5)
    assert recipe(Experiment(Network((20, 8, 3)), schedule=constant)) == "sgd, learning_rate 1, batches of 32"
    step = replace(constant, name="step")
    assert recipe(Experiment(Network((20, 8, 3)), schedule=step)).endswith("; step, factor 0.5")


def test_the_device_table_says_which_one_a_run_uses() -> None:
    lines = text_of(device_table([jax.devices()[0]] * 2)).splitlines()
    assert [line.split("│")[3].strip() for line in lines if "cpu:0" in line] == ["yes", "no"]
