"""Fitting: an experiment and a data set in, a run out."""

import math
import time
from collections.abc import Callable
from functools import partial
from os import PathLike

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, UInt32

from jaxmlp.data.dataset import Dataset, Examples, on_device, split
from jaxmlp.data.sources import load_data
from jaxmlp.errors import DivergedError, ExperimentError
from jaxmlp.network import Network, Params, init
from jaxmlp.training.config import Experiment
from jaxmlp.training.epoch import TrainState, evaluate, order_of, train_epoch
from jaxmlp.training.optimizers import make
from jaxmlp.training.privacy import PrivateTraining
from jaxmlp.training.recording import by_example, record_epoch, summary
from jaxmlp.training.run import EpochRecord, Result, Run, RunFolder


def load_for(experiment: Experiment) -> Dataset:
    """The data set that the experiment names, checked against its network.

    Raises:
        DataError: for data that can't be used.
        ExperimentError: for a network whose sizes don't fit the data.
    """
    dataset = load_data(experiment.data.source, classes=max(2, experiment.network.sizes[-1]))
    check_fit(experiment, dataset)
    return dataset


def check_fit(experiment: Experiment, dataset: Dataset) -> None:
    """Raises an ExperimentError where the network's sizes or the validation split don't fit the data."""
    if experiment.data.validation >= dataset.train.size:
        raise ExperimentError(
            f"data.validation is {experiment.data.validation:,}, but {dataset.name} has {dataset.train.size:,} "
            "training examples: expected fewer, so that some are left to train on; 0 for no validation"
        )
    n, sizes = experiment.network.sizes, " ".join(map(str, experiment.network.sizes))
    if n[0] != dataset.features:
        raise ExperimentError(
            f"network.sizes is {sizes}: {n[0]} inputs, but an example of {dataset.name} has {dataset.features} "
            f"features: expected {dataset.features} as the first size"
        )
    expected = (1, 2) if dataset.labelled and dataset.outputs == 2 else (dataset.outputs,)
    if n[-1] not in expected:
        kind = f"labels of {dataset.outputs} classes"
        if not dataset.labelled:
            kind = f"{dataset.outputs} wanted outputs an example (numbers of a floating type; labels take a whole type)"
        raise ExperimentError(
            f"network.sizes is {sizes}: {n[-1]} outputs, but {dataset.name} has {kind}: "
            f"expected {' or '.join(map(str, expected))} as the last size"
        )


def refuse_divergence(experiment: Experiment, epoch: int, **losses: float | None) -> None:
    """Raises a DivergedError where a loss is not finite."""
    if all(loss is None or math.isfinite(loss) for loss in losses.values()):
        return
    found = ", ".join(f"the {which} loss is {loss}" for which, loss in losses.items() if loss is not None)
    rate = experiment.optimizer.learning_rate
    raise DivergedError(
        f"training diverged in epoch {epoch}: {found}; a smaller optimizer.learning_rate than {rate:g} may help"
    )


def initial_state(experiment: Experiment) -> TrainState:
    """What the experiment starts from, a function of its seed."""
    seed = jax.device_put(np.uint32(experiment.train.seed))
    state: TrainState = _start(seed, network=experiment.network, optimizer=make(experiment.optimizer))
    return state


# runs once: random draws take long to optimize, and at level 1 come out the same
@partial(jax.jit, static_argnames=("network", "optimizer"), compiler_options={"xla_backend_optimization_level": 1})
def _start(seed: UInt32[Array, ""], *, network: Network, optimizer: optax.GradientTransformation) -> TrainState:
    params = init(jax.random.key(seed), network)
    return TrainState(params, optimizer.init(params))


def ignore(progress: object) -> None:
    """The report of who doesn't want any."""


def fit(
    experiment: Experiment,
    dataset: Dataset | None = None,
    *,
    workdir: str | PathLike[str] | None = None,
    report: Callable[[EpochRecord], None] = ignore,
) -> Run:
    """Trains the experiment's network and scores it, once and at the end, on the test set.

    Args:
        experiment: what to train and how.
        dataset: what to train on; by default what `experiment.data.source` names.
        workdir: a folder that is to hold the run (config.json, metrics.jsonl, checkpoints/, recorded/, result.json); by
            default nothing is written. After every epoch it is complete up to there.
        report: is called with each epoch's record.

    Raises:
        DataError: for data that can't be used.
        ExperimentError: for a network whose sizes don't fit the data, or privacy that can't be had.
        RunError: for a folder that holds a run already or can't be written.
        DivergedError: where a loss is not a number any more.

    >>> import numpy as np
    >>> import jaxmlp
    >>> inputs, labels = np.eye(4, dtype=np.float32), np.array([0, 1, 1, 0])
    >>> experiment = jaxmlp.Experiment(
    ...     jaxmlp.Network((4, 2), output="softmax", loss="cross_entropy"),
    ...     data=jaxmlp.Data(validation=0),
    ... )
    >>> run = jaxmlp.fit(experiment, jaxmlp.Dataset.from_arrays(inputs, labels, inputs, labels))
    >>> run.predict(inputs).tolist()
    [0, 1, 1, 0]
    """
    started = time.perf_counter()
    if dataset is None:
        dataset = load_for(experiment)
    else:
        check_fit(experiment, dataset)
    dataset, held_out = split(dataset, experiment.data.validation, experiment.train.seed)
    network, train, count = experiment.network, experiment.train, dataset.train.size
    private = PrivateTraining.of(experiment, count)
    folder = None if workdir is None else RunFolder.create(workdir, experiment, dataset)

    optimizer = make(experiment.optimizer)
    state = initial_state(experiment)
    examples, validation = on_device(dataset.train), on_device(held_out)

    record, recording, start = experiment.record, None, None
    if record.quantities:
        start = jax.tree.map(jnp.copy, state.params)  # the state itself is donated

    history: list[EpochRecord] = []
    for epoch in range(1, train.epochs + 1):
        begun = time.perf_counter()
        if private is not None:
            state, cost = private.epoch(state, examples, epoch, optimizer)
        else:
            order = order_of(train.seed, epoch, count, min(train.batch_size, count))
            placed = jax.device_put(order)
            if start is None:
                state, cost = train_epoch(
                    state, examples, placed, network=network, optimizer=optimizer, gradient=train.gradient
                )
            else:
                state, cost, found = record_epoch(
                    state, start, examples, placed, network=network, optimizer=optimizer, record=record
                )
                recording = by_example(jax.device_get(found), order, count, record.every)
        train_loss = float(jax.device_get(cost))
        seconds = time.perf_counter() - begun
        loss, accuracy = scores(state.params, validation, experiment) if held_out.size else (None, None)
        refuse_divergence(experiment, epoch, training=train_loss, validation=loss)
        line = EpochRecord(
            epoch=epoch,
            train_loss=train_loss,
            validation_loss=loss,
            validation_accuracy=accuracy,
            seconds=seconds,
            images_per_second=count / seconds,
            recorded=None if recording is None else summary(recording),
            epsilon=None if private is None else private.spent(epoch),
        )
        history.append(line)
        if folder is not None:
            folder.append(line, state.params, recording)
        report(line)

    test_loss, test_accuracy = scores(state.params, on_device(dataset.test), experiment)
    refuse_divergence(experiment, train.epochs, test=test_loss)
    result = Result(
        test_accuracy=test_accuracy,
        test_loss=test_loss,
        validation_accuracy=history[-1].validation_accuracy,
        validation_loss=history[-1].validation_loss,
        epochs=train.epochs,
        parameters=network.parameters,
        train_seconds=sum(record.seconds for record in history),
        wall_seconds=time.perf_counter() - started,
        epsilon=history[-1].epsilon,
    )
    if folder is not None:
        folder.finish(result)
    return Run(experiment, dataset.labelled, jax.device_get(state.params), tuple(history), result)


def scores(params: Params, examples: Examples, experiment: Experiment) -> tuple[float, float | None]:
    """The mean loss and, where the targets are labels, the accuracy over all of `examples`."""
    sums = jax.device_get(evaluate(params, examples, network=experiment.network))
    accuracy = int(sums.right) / examples.size if examples.targets.ndim == 1 else None
    return float(sums.loss) / examples.size, accuracy
