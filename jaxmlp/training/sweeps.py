"""Sweeps: many runs that answer one question, each in a folder that is named after what tells it from the others."""

import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from jaxmlp.data.dataset import Dataset
from jaxmlp.data.sources import load_data
from jaxmlp.errors import DivergedError, ExperimentError, JaxmlpError, StoppedError
from jaxmlp.training.config import Experiment, refuse_no_experiment
from jaxmlp.training.fit import fit, ignore, load_for, never
from jaxmlp.training.records import EpochRecord
from jaxmlp.training.run import Run, flat, is_locked, read


def shown(value: Any) -> str:
    """A setting's value as the command line takes it.

    >>> shown((("momentum", 0.9), ("nesterov", 1.0))), shown(0.1), shown((784, 10))
    ('momentum 0.9 nesterov 1', '0.1', '784 10')
    """
    if isinstance(value, list | tuple):
        return " ".join(map(shown, value))
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return str(value)


def differing(settings: Sequence[dict[str, str]]) -> list[str]:
    """The fields, by their dotted names, in which experiments differ; how checkpoints are kept makes no difference."""
    every = dict.fromkeys(field for one in settings for field in one)
    return [
        field
        for field in every
        if len({one.get(field) for one in settings}) > 1 and not field.startswith("checkpoint.")
    ]


def titles(fields: Sequence[str]) -> list[str]:
    """Fields without their section, where that leaves no two alike: `sizes`; but `optimizer` for `optimizer.name`.

    >>> titles(["network.sizes", "optimizer.name", "data.examples"])
    ['sizes', 'optimizer', 'examples']
    """
    short = [field.removesuffix(".name").rpartition(".")[2] for field in fields]
    return [one if short.count(one) == 1 else field for one, field in zip(short, fields, strict=True)]


def settings_of(experiment: Experiment) -> dict[str, str]:
    """Every field of the experiment by its dotted name, as the command line takes it."""
    return {name: shown(value) for name, value in flat(experiment.as_dict()).items()}


def names_of(experiments: Sequence[Experiment]) -> list[str]:
    """A name of each, of the fields in which they differ: `batch_size=10,seed=0`.

    Raises:
        ExperimentError: where two have one name, or it would be too long for a folder's.
    """
    settings = [settings_of(experiment) for experiment in experiments]
    fields = differing(settings)
    titled = [*zip(titles(fields), fields, strict=True)]
    names = [",".join(f"{title}={file_name(one[field])}" for title, field in titled) or "run" for one in settings]
    for name in names:
        if names.count(name) > 1:
            alike = " and ".join(f"[{i}]" for i, other in enumerate(names) if other == name)
            raise ExperimentError(f"of the sweep's experiments, {alike} are the same: expected different settings")
        if len(name) > LONGEST:
            raise ExperimentError(
                f"the sweep has a run named {name[:60]}..., of {len(name)} characters: expected settings that "
                f"differ in fewer or shorter values, so that they name a folder in {LONGEST}"
            )
    return names


def file_name(value: str) -> str:
    """Without what a folder's name can't have, or a shell would read otherwise."""
    return quote(value, safe=" :+", errors="surrogateescape").replace(" ", "-")


def set_by(sweep: Sequence[Experiment], base: Experiment) -> list[str]:
    """The fields in which a sweep's runs differ from the experiment that it makes them of."""
    return differing([*map(settings_of, [base, *sweep])])


def overruled(
    given: Iterable[str],
    asked: Experiment,
    own: Experiment,
    sweep: Callable[[Experiment], Sequence[Experiment]],
) -> list[str]:
    """Which of the fields `given` on the command line a sweep makes nothing of, as it sets them itself.

    The sweep is of the experiment that was `asked` for; with a field as the file's `own` has it, it is the same.
    """
    runs, lost = sweep(asked), []
    for name in dict.fromkeys(given):
        section, _, field = name.partition(".")
        part, usual = getattr(asked, section), getattr(getattr(own, section), field)
        if getattr(part, field) == usual:
            continue
        with contextlib.suppress(JaxmlpError):  # what can't be without the field is made something of
            if sweep(replace(asked, **{section: replace(part, **{field: usual})})) == runs:
                lost.append(name)
    return lost


LONGEST = 250
"""Bytes of a folder's name: file systems allow 255."""


class Swept(NamedTuple):
    """How a run of a sweep ended.

    Attributes:
        number: From 1.
        name: The settings in which it differs from the others.
        run: None where it diverged.
        failure: How it diverged, if so.
        seconds: Since it began; None of one that had ended before.
    """

    number: int
    name: str
    run: Run | None
    failure: str
    seconds: float | None


def sweep(
    experiments: Iterable[Experiment],
    dataset: Dataset | None = None,
    *,
    workdir: str | PathLike[str] | None = None,
    starting: Callable[[int, str], None] = lambda number, name: None,
    report: Callable[[EpochRecord], None] = ignore,
    ended: Callable[[Swept], None] = ignore,
    stop: Callable[[], bool] = never,
) -> list[Run]:
    """Trains many experiments, one after the other.

    Args:
        experiments: no two of the same settings.
        dataset: what all are trained on; by default what each one's `data.source` names.
        workdir: a folder for the runs' own, `batch_size=10,seed=0` and so on; by default nothing is written. Runs that
            have ended there are taken as they are, others are gone on with.
        starting: is called with a run's number and name before it begins.
        report: is called with the record of each epoch that is trained.
        ended: is called after each run.
        stop: as of `jaxmlp.fit`.

    Returns:
        The runs in the experiments' order, without those that diverged.

    Raises:
        ExperimentError: where two experiments are the same, or one doesn't fit its data: before any is trained; and
            whatever else `jaxmlp.fit` raises, but DivergedError.

    >>> import jaxmlp
    >>> network = jaxmlp.Network((784, 16, 16, 10))
    >>> seeds = [jaxmlp.Experiment(network, train=jaxmlp.Train(epochs=1, seed=seed)) for seed in range(2)]
    >>> [run.result.test_accuracy > 0.5 for run in jaxmlp.sweep(seeds)]
    [True, True]
    """
    if not isinstance(experiments, Iterable):
        raise ExperimentError(
            f"experiments has type {type(experiments).__name__}: expected a list of jaxmlp.Experiments"
        )
    experiments = tuple(experiments)
    for i, one in enumerate(experiments):
        refuse_no_experiment(one, f"experiments[{i}]")
    names, load = names_of(experiments), lru_cache(maxsize=1)(load_data)

    def data_of(experiment: Experiment) -> Dataset:
        return load_for(experiment, load if dataset is None else lambda source, classes: dataset)

    for name, experiment in zip(names, experiments, strict=True):
        try:
            data_of(experiment)
        except ExperimentError as error:
            raise ExperimentError(f"{name}: {error}") from error

    runs: list[Run] = []
    trained: list[int] = []

    def count(record: EpochRecord) -> None:
        trained.append(record.epoch)
        report(record)

    for number, (name, experiment) in enumerate(zip(names, experiments, strict=True), start=1):
        if number > 1 and stop():
            raise StoppedError(f"interrupted before run {number} of {len(names)}")
        starting(number, name)
        begun, before, run = time.perf_counter(), len(trained), None
        folder = None if workdir is None else Path(workdir) / name
        failure = "" if folder is None else divergence(folder, experiment)
        had_ended = bool(failure)
        if not failure:
            try:
                run = fit(experiment, data_of(experiment), workdir=folder, resume=True, report=count, stop=stop)
                runs.append(run)
                had_ended = len(trained) == before
            except DivergedError as error:
                failure = str(error)
        ended(Swept(number, name, run, failure, None if had_ended else time.perf_counter() - begun))
    return runs


def divergence(folder: Path, experiment: Experiment) -> str:
    """How the same run diverged before, as it would once more; empty where it didn't."""
    if not (folder / "stopped.json").exists() or is_locked(folder):
        return ""
    kept = read(folder)
    diverged = kept.experiment == experiment and kept.stopped.get("kind") == "diverged"
    return kept.stopped.get("message", "") if diverged else ""
