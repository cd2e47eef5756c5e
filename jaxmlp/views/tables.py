"""Tables for the terminal."""

from collections.abc import Sequence
from pathlib import Path

import jax
from rich.markup import escape
from rich.table import Table

from jaxmlp.data.dataset import Dataset
from jaxmlp.training.config import Experiment
from jaxmlp.training.records import Result
from jaxmlp.training.sweeps import settings_of
from jaxmlp.views.progress import duration


def heading(experiment: Experiment, dataset: Dataset, device: jax.Device) -> str:
    """What is about to be trained, and how, in three lines."""
    network, validation = experiment.network, experiment.data.validation
    trained_on = dataset.train.size - validation if experiment.data.examples is None else experiment.data.examples
    whole = " (less than a batch: an epoch is one step)" if experiment.train.batch_size > trained_on else ""
    return (
        f"{network}: {network.parameters:,} parameters\n"
        f"{recipe(experiment)}\n"
        f"{dataset.name}: {trained_on:,} training{whole}, {validation:,} validation, "
        f"{dataset.test.size:,} test examples, on {device.platform}:{device.id} ({device.device_kind})"
    )


def recipe(experiment: Experiment) -> str:
    """How an experiment trains: the optimizer, and what is changed of the schedule and the distortions, and felt.

    >>> from jaxmlp import Distort, Network, Schedule
    >>> recipe(Experiment(Network((784, 10)), schedule=Schedule("cosine", warmup=2.0), distort=Distort(shift=1.0)))
    'sgd, learning_rate 1, batches of 32; cosine, warmup 2; shift 1'
    """
    usual = settings_of(Experiment(experiment.network))
    parts: dict[str, list[str]] = {"optimizer": [], "schedule": [], "distort": []}
    for field, value in settings_of(experiment).items():
        section, _, name = field.partition(".")
        if name in OF_SCHEDULES and experiment.schedule.name not in OF_SCHEDULES[name]:
            continue
        if name == "sigma" and not experiment.distort.alpha:
            continue
        if section in parts and (value != usual.get(field) or field in ("optimizer.name", "optimizer.learning_rate")):
            parts[section].append(value if name in ("name", "parameters") else f"{name} {value}")
    parts["optimizer"].append(f"batches of {experiment.train.batch_size:,}")
    return "; ".join(", ".join(part) for part in parts.values() if part)


OF_SCHEDULES = {"factor": ("exponential", "step"), "every": ("step",), "end": ("cosine",)}
"""Fields that only some schedules have a use for."""


def result_table(result: Result, gradient: str, folder: Path) -> Table:
    """The end of a run."""
    table = Table(show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    if result.test_accuracy is not None:
        table.add_row("test accuracy", f"{100 * result.test_accuracy:.2f} %")
    table.add_row("test loss", f"{result.test_loss:.4f}")
    if result.validation_accuracy is not None:
        table.add_row("validation accuracy", f"{100 * result.validation_accuracy:.2f} %")
    elif result.validation_loss is not None:
        table.add_row("validation loss", f"{result.validation_loss:.4f}")
    if result.epsilon is not None:
        table.add_row("epsilon spent", f"{result.epsilon:.3f}")
    table.add_row("parameters", f"{result.parameters:,}")
    table.add_row(
        "training",
        f"{result.epochs} epoch{'s' * (result.epochs > 1)} in {_seconds(result.train_seconds)}, compilation included",
    )
    table.add_row("gradient", gradient)
    table.add_row("in all", _seconds(result.wall_seconds))
    table.add_row("run folder", escape(str(folder)))
    return table


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else duration(seconds)


def device_table(devices: Sequence[jax.Device]) -> Table:
    """The devices that JAX sees, and which of them a run uses."""
    table = Table("device", "kind", "a run uses it")
    for i, device in enumerate(devices):
        table.add_row(f"{device.platform}:{device.id}", device.device_kind, "yes" if i == 0 else "no")
    return table
