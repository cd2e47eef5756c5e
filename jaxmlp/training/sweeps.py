"""Sweeps: many runs that answer one question, each in a folder that is named after what tells it from the others."""

import time
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from jaxmlp.data.dataset import Dataset
from jaxmlp.errors import DivergedError, ExperimentError
from jaxmlp.training.config import Experiment
from jaxmlp.training.fit import fit, ignore, load_for, never
from jaxmlp.training.records import EpochRecord
from jaxmlp.training.run import Run, flat


def shown(value: Any) -> str:
    """A setting's value as the command line takes it."""
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


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
        ExperimentError: where two are the same, or a name would be too long for a folder's.
    """
    settings = [settings_of(experiment) for experiment in experiments]
    fields = differing(settings)
    names = [
        ",".join(f"{title}={one.get(field)}" for title, field in zip(titles(fields), fields, strict=True))
        .replace(" ", "-")
        .replace("/", ":")
        for one in settings
    ]
    names = names if fields else ["run"] * len(names)
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ExperimentError(f"the sweep has {names.count(twice)} runs of the same settings, {twice}: expected one")
    long = next((name for name in names if len(name.encode()) > LONGEST), None)
    if long is not None:
        raise ExperimentError(f"runs of the sweep differ in {', '.join(fields)}: expected fewer, to name their folders")
    return names


def overruled(own: Experiment, asked: Experiment, experiments: Sequence[Experiment]) -> list[str]:
    """The fields in which `asked` differs from `own`, and which a sweep made of it has set otherwise all the same."""
    wanted, before = settings_of(asked), settings_of(own)
    given, swept = [name for name in wanted if wanted[name] != before[name]], [*map(settings_of, experiments)]
    return [name for name in given if any(one[name] != wanted[name] for one in swept)]


LONGEST = 250
"""Bytes of a folder's name: file systems allow 255."""


class Swept(NamedTuple):
    """How a run of a sweep ended."""

    number: int
    """From 1."""
    name: str
    run: Run | None
    """None where it diverged."""
    seconds: float
    """Since it began; of one that had ended before, next to none."""


def sweep(
    experiments: Sequence[Experiment],
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
        workdir: a folder for the runs' own, `batch_size=10,seed=0` and so on; by default nothing is written. Runs that
            have ended there are taken as they are, others are gone on with.
        starting: is called with a run's number and name before it begins.
        report: is called with the record of each epoch that is trained.
        ended: is called after each run.
        stop: as of `jaxmlp.fit`.

    Returns:
        The runs in the experiments' order, without those that diverged.

    Raises:
        ExperimentError: where two experiments are the same; and whatever `jaxmlp.fit` raises, but DivergedError.

    >>> import jaxmlp
    >>> network = jaxmlp.Network((784, 16, 16, 10))
    >>> seeds = [jaxmlp.Experiment(network, train=jaxmlp.Train(epochs=1, seed=seed)) for seed in range(2)]
    >>> [run.result.test_accuracy > 0.5 for run in jaxmlp.sweep(seeds)]
    [True, True]
    """
    names, datasets = names_of(experiments), dict[tuple[str, int], Dataset]()
    runs: list[Run] = []
    for number, (name, experiment) in enumerate(zip(names, experiments, strict=True), start=1):
        starting(number, name)
        begun, run = time.perf_counter(), None
        folder = None if workdir is None else Path(workdir) / name
        source = experiment.data.source, experiment.network.sizes[-1]
        if source not in datasets:
            datasets[source] = load_for(experiment)
        try:
            run = fit(experiment, datasets[source], workdir=folder, resume=True, report=report, stop=stop)
            runs.append(run)
        except DivergedError:
            pass
        ended(Swept(number, name, run, time.perf_counter() - begun))
    return runs
