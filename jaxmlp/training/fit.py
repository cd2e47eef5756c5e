"""Fitting: an experiment and a data set in, a run out."""

import logging
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from os import PathLike
from typing import Any, NamedTuple, NoReturn

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxmlp.activations import RANGES
from jaxmlp.data.dataset import Dataset, Examples, Scale, on_device, split_indices
from jaxmlp.data.sources import load_data
from jaxmlp.devices import on_cpu
from jaxmlp.errors import DataError, DivergedError, ExperimentError, LabelError, OutOfMemoryError, StoppedError
from jaxmlp.losses import BOUNDED
from jaxmlp.network import Network, Params
from jaxmlp.training.batches import Batches, Feed, batch_of, fill_weights, order_of
from jaxmlp.training.checkpoints import Snapshot, host_copy, reason
from jaxmlp.training.config import Experiment, refuse_no_experiment
from jaxmlp.training.epoch import (
    Part,
    Recipe,
    Trained,
    TrainState,
    evaluate,
    initial_state,
    key_of,
    portions,
    prepared,
    sound_mean,
    train_steps,
)
from jaxmlp.training.faults import first_fault
from jaxmlp.training.privacy import PrivateTraining, steps_of_epoch
from jaxmlp.training.recording import Recording, by_example, record_epoch, summary
from jaxmlp.training.records import EpochRecord, Result
from jaxmlp.training.run import Run, RunFolder, import_ahead

log = logging.getLogger("jaxmlp")


def load_for(experiment: Experiment, load: Callable[[str, int], Dataset] = load_data) -> Dataset:
    """The data set that the experiment names, as `load(source, classes)` gives it, checked against its network.

    Raises:
        DataError: for data that can't be used.
        ExperimentError: for a network whose sizes don't fit the data.
    """
    n = experiment.network.sizes[-1]
    try:
        dataset = load(experiment.data.source, max(2, n))
    except LabelError as error:
        raise DataError(f"{error}; network.sizes ends with {n} output{'s' * (n > 1)}") from error
    check_fit(experiment, dataset)
    return dataset


def check_fit(experiment: Experiment, dataset: Dataset) -> None:
    """Raises an ExperimentError where the experiment doesn't fit the data, or its warm-up its epochs.

    So it does for a momentum of 1 and more. Raises a DataError where the data set is something else, an
    OutOfMemoryError where the network can't be in memory.
    """
    if not isinstance(dataset, Dataset):
        raise DataError(f"dataset is a {type(dataset).__name__}: expected what Dataset.from_arrays or load_data gives")
    refuse_giants(experiment.network)
    for name, value in experiment.optimizer.parameters:
        if name in SHARES and not 0 <= value < 1:
            raise ExperimentError(f"optimizer.parameters has {name} {value:g}: expected 0 or more, below 1")
    if experiment.schedule.warmup >= experiment.train.epochs:
        raise ExperimentError(
            f"schedule.warmup is {experiment.schedule.warmup:g} epochs, but train.epochs is {experiment.train.epochs}: "
            "expected fewer, so that the learning rate comes to its full size"
        )
    if experiment.data.validation >= dataset.train.size:
        raise ExperimentError(
            f"data.validation is {experiment.data.validation:,}, but {dataset.name} has {dataset.train.size:,} "
            "training examples: expected fewer, so that some are left to train on; 0 for no validation"
        )
    left = dataset.train.size - experiment.data.validation
    if experiment.data.examples is not None and experiment.data.examples > left:
        raise ExperimentError(
            f"data.examples is {experiment.data.examples:,}, but {dataset.name} has {dataset.train.size:,} training "
            f"examples, of which data.validation holds out {experiment.data.validation:,}: expected {left:,} or fewer"
        )
    n, sizes = experiment.network.sizes, " ".join(map(str, experiment.network.sizes))
    if n[0] != dataset.features:
        raise ExperimentError(
            f"network.sizes is {sizes}: {n[0]} inputs, but an example of {dataset.name} has {dataset.features} "
            f"features: expected {dataset.features} as the first size"
        )
    expected = (1, 2) if dataset.labelled and dataset.outputs == 2 else (dataset.outputs,)
    if n[-1] not in expected:
        kind, hint = f"labels of {dataset.outputs} classes", ""
        if dataset.labelled and not (dataset.train.targets == 0).any():
            hint = "; labels count from 0, but none is 0"
        elif dataset.labelled and n[-1] == 1:
            hint = "; targets of a floating type, such as float32, are no labels but wanted outputs"
        if not dataset.labelled:
            kind = f"{dataset.outputs} wanted outputs an example (numbers of a floating type; labels take a whole type)"
        raise ExperimentError(
            f"network.sizes is {sizes}: {n[-1]} outputs, but {dataset.name} has {kind}: "
            f"expected {' or '.join(map(str, expected))} as the last size{hint}"
        )

    if experiment.distort and len(dataset.shape) not in (2, 3):
        raise ExperimentError(
            f"distort distorts images, but an example of {dataset.name} has shape {dataset.shape}: expected (height, "
            "width) or (height, width, channels), or no distort"
        )
    if experiment.distort.shift and experiment.distort.shift >= min(dataset.shape[:2]):
        raise ExperimentError(
            f"distort.shift is {experiment.distort.shift:g} pixels, but an image of {dataset.name} has "
            f"{' x '.join(map(str, dataset.shape[:2]))}: expected fewer than would move all of it away"
        )
    if experiment.network.label_smoothing and not dataset.labelled:
        raise ExperimentError(
            f"network.label_smoothing is {experiment.network.label_smoothing:g}, but {dataset.name} has no labels: "
            "expected 0"
        )
    if experiment.network.loss in BOUNDED and not dataset.labelled:
        lowest, highest = BOUNDED[experiment.network.loss]
        targets = [part.targets for part in (dataset.train, dataset.test)]
        low, high = float(min(map(np.min, targets))), float(max(map(np.max, targets)))
        if low < lowest - ROUNDING or high > highest + ROUNDING:
            range_ = f"{lowest:g} or more" if highest == math.inf else f"{lowest:g} to {highest:g}"
            raise ExperimentError(
                f"network.loss is {experiment.network.loss!r}, but the targets of {dataset.name} go from {low:.7g} to "
                f"{high:.7g}: expected {range_}; for other targets, network.loss squared_error with network.output "
                "identity"
            )


def refuse_giants(network: Network) -> None:
    """Raises an OutOfMemoryError where a network's parameters, gradient and checkpoint are more than the host can hold.

    Linux gives out more memory than there is, and ends the process, or another's, when it is used.
    """
    needed, there = 3 * 4 * network.parameters, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if on_cpu() and needed > there:
        raise OutOfMemoryError(
            f"{network} has {network.parameters:,} parameters: training takes {needed / 1e9:,.0f} GB or more, and this "
            f"machine has {there / 1e9:,.0f}: try a smaller network.sizes"
        )


SHARES = ("momentum", "b1", "b2", "b3", "beta", "decay")
"""Of optimizers' parameters, those that say how much of what was before stays: from 1 on, training diverges."""
ROUNDING = 1e-5
"""Of probabilities in float32."""
DARK = 64
"""Grey levels all below it are hardly an image's, whose brightest pixel would be a quarter of white."""


class Divided(NamedTuple):
    """A data set as an experiment uses it.

    Attributes:
        dataset: Its training set is what is trained on.
        held_out: What is validated on.
        indices: Where the examples of the training set lie in the whole.
        scale: How they are standardised, if they are.
    """

    dataset: Dataset
    held_out: Examples
    indices: Int[np.ndarray, " N"]
    scale: Scale | None


def divided(experiment: Experiment, dataset: Dataset | None) -> Divided:
    """Cuts the validation set out, and standardises, as the experiment says; None is what `data.source` names.

    Raises:
        ExperimentError: for a data set that the experiment doesn't fit.
    """
    dataset = load_for(experiment) if dataset is None else dataset
    check_fit(experiment, dataset)
    chosen, seed = experiment.data, experiment.train.seed
    cut, indices = split_indices(dataset.train.size, chosen.validation, seed, chosen.examples)
    held_out, dataset = dataset.train.take(cut), replace(dataset, train=dataset.train.take(indices))
    warn_of_ranges(experiment, dataset)
    if not experiment.data.standardize:
        return Divided(dataset, held_out, indices, None)
    scale = Scale.of(dataset.train.inputs)
    parts = [part._replace(inputs=scale(part.inputs)) for part in (dataset.train, dataset.test, held_out)]
    return Divided(replace(dataset, train=parts[0], test=parts[1]), parts[2], indices, scale)


def warn_of_ranges(experiment: Experiment, dataset: Dataset) -> None:
    """Logs what is mostly a mistake: numbers that are hardly grey levels, targets that no output can reach.

    So are labels as rows with a single 1, which are scored as numbers.
    """
    inputs, targets, output = dataset.train.inputs, dataset.train.targets, experiment.network.output
    if inputs.dtype == np.uint8 and not experiment.data.standardize and 0 < inputs.max() < DARK:
        log.warning(
            "jaxmlp: %s: inputs of uint8 count as grey levels, 255 as 1, but none is above %d: numbers that are no "
            "grey levels should have another type, such as float32",
            dataset.name,
            inputs.max(),
        )
    if targets.ndim == 2 and targets.shape[1] > 1 and is_one_hot(targets) and not np.array_equal(inputs, targets):
        log.warning(
            "jaxmlp: %s: every target is a row with a single 1, which counts as numbers wanted, without an accuracy: "
            "labels, as targets.argmax(axis=1) gives them, have one",
            dataset.name,
        )
    lowest, highest = RANGES.get(output, (-math.inf, math.inf))
    if not dataset.labelled and (targets.min() < lowest - ROUNDING or targets.max() > highest + ROUNDING):
        log.warning(
            "jaxmlp: %s: targets go from %.7g to %.7g, but outputs of %s only from %g to %g: network.output identity "
            "gives any",
            dataset.name,
            targets.min(),
            targets.max(),
            output,
            lowest,
            highest,
        )


def is_one_hot(targets: Float[np.ndarray, "N n_L"]) -> bool:
    """Whether every row is a single 1 among zeros."""
    return bool(((targets == 0) | (targets == 1)).all() and (targets.sum(axis=1) == 1).all())


def diverged(experiment: Experiment, where: str, what: str) -> DivergedError:
    """What to say of training that has come to something that is not finite, and to do about it."""
    return DivergedError(
        f"training diverged in {where}: {what}; a smaller optimizer.learning_rate than "
        f"{experiment.optimizer.learning_rate:g} may help"
    )


def refuse_divergence(experiment: Experiment, epoch: int, **losses: float | None) -> None:
    """Raises a DivergedError where a loss is not finite."""
    if all(loss is None or math.isfinite(loss) for loss in losses.values()):
        return
    found = ", ".join(f"the {which} loss is {loss:.6g}" for which, loss in losses.items() if loss is not None)
    raise diverged(experiment, f"epoch {epoch}", found)


def refuse_unsound(experiment: Experiment, epoch: int, state: TrainState) -> None:
    """Raises a DivergedError where a number of the state is not finite."""
    if not all(np.isfinite(leaf).all() for leaf in jax.device_get(jax.tree.leaves(state))):
        what = "a parameter, or what the optimizer keeps of it, is not finite"
        raise diverged(experiment, f"epoch {epoch}", what)


def ignore(progress: object) -> None:
    """The report of who doesn't want any."""


def never() -> bool:
    """The `stop` of who waits for the end."""
    return False


def fit(
    experiment: Experiment,
    dataset: Dataset | None = None,
    *,
    workdir: str | PathLike[str] | None = None,
    resume: bool = False,
    report: Callable[[EpochRecord], None] = ignore,
    stop: Callable[[], bool] = never,
) -> Run:
    """Trains the experiment's network and scores it, once and at the end, on the test set.

    Args:
        experiment: what to train and how.
        dataset: what to train on; by default what `experiment.data.source` names.
        workdir: a folder that is to hold the run (config.json, metrics.jsonl, checkpoints/, recorded/, result.json); by
            default nothing is written. It can be resumed from there, whatever happens.
        resume: whether to go on with the run in `workdir`, where there is one; it ends bit for bit as it would have
            without the break. Of one that has ended, nothing is trained.
        report: is called with the record of each epoch that is trained.
        stop: is asked about once a second or more often, and after every epoch, whether training is to stop; of private
            training, and of training that records, whose epochs are one program each, after every epoch alone. If so,
            the state is saved first.

    Raises:
        DataError: for data that can't be used.
        ExperimentError: for a network whose sizes don't fit the data, or privacy that can't be had.
        RunError: for a folder that holds a run already, or one of other settings, that somebody else trains in, or that
            can't be written.
        DivergedError: where a loss or a parameter is not a number any more.
        OutOfMemoryError: where a batch or the network is too large.
        StoppedError: where `stop` said so.

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
    refuse_no_experiment(experiment)
    if workdir is not None:
        import_ahead()
    whole = load_for(experiment) if dataset is None else dataset
    data = divided(experiment, whole)
    private = PrivateTraining.of(experiment, data.dataset.train.size)
    with memory_for(experiment):
        if workdir is None:
            return trained(experiment, data, private, None, report, stop, started)
        folder = RunFolder.open(workdir, experiment, data.dataset, whole.checksum(), data.scale, resume)
        try:
            ended = folder.ended()
            if ended is not None:
                log.info("jaxmlp: %s: this run has ended: there is nothing to train", folder.path)
                return ended
            return trained(experiment, data, private, folder, report, stop, started)
        except (StoppedError, DivergedError) as error:
            folder.stopped("interrupted" if isinstance(error, StoppedError) else "diverged", str(error))
            raise
        finally:
            folder.close()


@contextmanager
def memory_for(experiment: Experiment) -> Iterator[None]:
    """Says of a lack of memory what to do about it."""
    try:
        yield
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        B = experiment.train.batch_size
        hint = f"try train.batch_size {B // 2}" if B > 1 else "try a smaller network.sizes"
        raise OutOfMemoryError(
            f"out of memory, training {experiment.network} in batches of {B}: {hint} ({reason(error)})"
        ) from error


def trained(
    experiment: Experiment,
    data: Divided,
    private: PrivateTraining | None,
    folder: RunFolder | None,
    report: Callable[[EpochRecord], None],
    stop: Callable[[], bool],
    started: float,
) -> Run:
    """`fit`, from where the folder stands; `started` is when it was called."""
    dataset, held_out, indices, scale = data
    start = initial_state(experiment)
    training = Training(experiment, dataset.train, start.params, indices, private, dataset.shape)
    network, validation = experiment.network, portions(held_out)

    at = Snapshot(host_copy(start), 1, NONE, 0, 0.0, 0.0, ())
    if folder is not None:
        at = folder.newest(at.state) or at
        if at.epoch > experiment.train.epochs:
            log.info("jaxmlp: %s: all epochs have been trained: the test is made once more", folder.path)
        elif at.steps:
            log.info("jaxmlp: %s: going on in epoch %d, after %s steps", folder.path, at.epoch, f"{at.steps:,}")
        elif folder.begun:
            log.warning("jaxmlp: %s: no checkpoint is left: training begins anew, with epoch 1", folder.path)
    state, history = jax.device_put(at.state), [*at.history]
    saved, started = time.perf_counter(), started - at.wall_seconds
    if folder is not None:
        folder.begin(at.history, training.steps * (at.epoch - 1))

    def keep(epoch: int, losses: Float[np.ndarray, " step"], seconds: float) -> None:
        nonlocal saved
        if folder is None:
            return
        saved, steps = time.perf_counter(), training.steps * (epoch - 1) + losses.size
        folder.saver.save(Snapshot(host_copy(state), epoch, losses, steps, seconds, saved - started, tuple(history)))

    def leave(epoch: int, steps: int) -> NoReturn:
        kept, within = "", f" and {steps:,} of the next one's {training.steps:,} steps" if steps else ""
        if folder is not None:
            folder.saver.wait()
            kept = f"; {folder.path} keeps the run up to there, and --resume goes on with it"
        raise StoppedError(f"interrupted after {epoch - 1} of {experiment.train.epochs} epochs{within}{kept}")

    for epoch in range(at.epoch, experiment.train.epochs + 1):
        losses, seconds = (at.losses, at.seconds) if epoch == at.epoch else (NONE, 0.0)
        begun = time.perf_counter()
        for part in training.epoch(state, epoch, losses):
            state, seconds = part.state, seconds + time.perf_counter() - begun
            if part.loss is None:
                leaving = stop()
                if leaving or time.perf_counter() - saved >= experiment.checkpoint.seconds:
                    keep(epoch, part.losses, seconds)
                if leaving:
                    leave(epoch, part.losses.size)
            begun = time.perf_counter()
        assert part.loss is not None
        loss, accuracy = evaluate(state.params, validation, network=network) if validation else (None, None)
        refuse_divergence(experiment, epoch, training=part.loss, validation=loss)
        line = EpochRecord(
            epoch=epoch,
            train_loss=part.loss,
            validation_loss=loss,
            validation_accuracy=accuracy,
            seconds=seconds,
            images_per_second=dataset.train.size / seconds,
            recorded=None if part.recording is None else summary(part.recording),
            epsilon=training.spent(epoch),
            skipped=training.skipped(state, history),
        )
        history.append(line)
        if folder is not None:
            folder.append(line, part.losses, training.steps * epoch, part.recording)
        keep(epoch + 1, NONE, 0.0)
        report(line)
        if epoch < experiment.train.epochs and stop():
            leave(epoch + 1, 0)

    test_loss, test_accuracy = evaluate(state.params, portions(dataset.test), network=network)
    refuse_divergence(experiment, experiment.train.epochs, test=test_loss)
    result = Result(
        test_accuracy=test_accuracy,
        test_loss=test_loss,
        validation_accuracy=history[-1].validation_accuracy,
        validation_loss=history[-1].validation_loss,
        epochs=experiment.train.epochs,
        parameters=experiment.network.parameters,
        train_seconds=sum(record.seconds for record in history),
        wall_seconds=time.perf_counter() - started,
        epsilon=history[-1].epsilon,
    )
    if folder is not None:
        folder.finish(result)
    return Run(experiment, dataset.labelled, host_copy(state).params, tuple(history), result, scale)


NONE = np.zeros(0, np.float32)
"""The losses of no step."""
FIRST_PORTION = 64
"""Steps, when it isn't known yet how long they take."""
NAMED = 128
"""Of a batch's examples, so many are named."""


class Reached(NamedTuple):
    """Where training stands after a part of an epoch.

    Attributes:
        losses: The mean loss of each step so far; of none, where only whole epochs are trained.
        loss: The epoch's, when it has ended.
    """

    state: TrainState
    losses: Float[np.ndarray, " step"]
    loss: float | None = None
    recording: Recording | None = None


class Ahead(NamedTuple):
    """The part of an epoch that is to be trained next, put in order."""

    epoch: int
    first: int
    end: int
    batches: Batches


class Training:
    """An experiment's epochs, of whatever kind."""

    def __init__(
        self,
        experiment: Experiment,
        examples: Examples,
        start: Params,
        indices: Int[np.ndarray, " N"],
        private: PrivateTraining | None,
        shape: tuple[int, ...],
    ) -> None:
        self.experiment, self.indices = experiment, indices
        self.count = len(indices)
        self.batch_size = min(experiment.train.batch_size, self.count)
        self.private = private
        self.start = start
        self.recipe = Recipe.of(experiment, shape, self.steps)
        if private is not None or experiment.record.quantities:  # epochs that gather each batch on the device
            self.placed = on_device(examples)
        else:
            ahead = not self.recipe.gathers(self.batch_size)
            self.feed = Feed(examples, experiment.train.seed, self.batch_size, ahead)
        self.portion = FIRST_PORTION
        """Steps to hand to the device at a time, if they can be had: soon, about a second's worth."""
        self.timed = False
        """Whether any have been."""
        self.ahead: Ahead | None = None
        """What is ready."""

    @property
    def steps(self) -> int:
        """Steps an epoch."""
        if self.private is not None:
            return steps_of_epoch(self.count, self.batch_size)
        return math.ceil(self.count / self.batch_size)

    def spent(self, epoch: int) -> float | None:
        """The privacy spent by all epochs up to this one; None where training is not private."""
        return None if self.private is None else self.private.spent(epoch)

    def skipped(self, state: TrainState, history: list[EpochRecord]) -> int | None:
        """How many updates were not finite, and left out, since those epochs; None where they end the run."""
        if self.experiment.optimizer.nonfinite == "stop":
            return None
        counted: Any = state.optimizer
        return int(jax.device_get(counted.total_notfinite)) - sum(record.skipped or 0 for record in history)

    def epoch(self, state: TrainState, epoch: int, losses: Float[np.ndarray, " step"]) -> Iterator[Reached]:
        """Trains the rest of an epoch, of which the steps of `losses` are done; a private or recorded one as a whole.

        Raises:
            DivergedError: where a loss or a parameter is not finite, which names the step and what it began with.
        """
        record = self.experiment.record
        if self.private is not None:
            state, cost = self.private.epoch(state, self.placed, epoch, self.recipe)
            refuse_unsound(self.experiment, epoch, state)
            yield Reached(state, NONE, float(jax.device_get(cost)))
            return
        if record.quantities:
            order = order_of(self.experiment.train.seed, epoch, self.count, self.batch_size)
            state, cost, found = record_epoch(
                state,
                self.start,
                self.placed,
                jax.device_put(order),
                self.part(epoch, 0, self.steps),
                recipe=self.recipe,
                record=record,
            )
            refuse_unsound(self.experiment, epoch, state)
            recording = by_example(jax.device_get(found), order, self.count, record.every)
            yield Reached(state, NONE, float(jax.device_get(cost)), recording)
            return
        met = jax.device_put(np.concatenate([losses, np.zeros(self.steps - losses.size, np.float32)]))
        first = losses.size
        while first < self.steps:
            begun = time.perf_counter()
            batches, last = self.ready(epoch, first)
            before, (state, met, sound) = state, self.train(state, met, batches, self.part(epoch, first, last))
            if last < self.steps and self.timed:  # while the device trains
                self.ready(epoch, last)
            elif last == self.steps and epoch < self.experiment.train.epochs:
                self.ready(epoch + 1, 0)
            means = jax.device_get(met)[:last]
            if not self.is_sound(sound, means[first:]):
                raise self.fault(before, epoch, first, last)
            self.time(last - first, time.perf_counter() - begun)
            first = last
            ended = last == self.steps
            yield Reached(state, means.copy(), sound_mean(means, self.count, self.batch_size) if ended else None)

    def ready(self, epoch: int, first: int) -> tuple[Batches, int]:
        """The batches of the epoch's next part, which begins with step `first`, in order; and where it ends."""
        if self.ahead is None or self.ahead[:2] != (epoch, first):
            end = min(self.steps, first + self.portion, first + self.feed.most)
            self.ahead = None  # its buffer may be taken
            self.ahead = Ahead(epoch, first, end, self.feed(epoch, first, end))
        return self.ahead.batches, self.ahead.end

    def time(self, steps: int, seconds: float) -> None:
        """Learns how many steps to take next; from an epoch's short rest, only that they may be more."""
        found = max(1, min(4 * self.portion, int(steps / seconds)))
        is_rest = self.timed and 2 * steps < min(self.portion, self.feed.most, self.steps)
        self.portion, self.timed = max(self.portion, found) if is_rest else found, True

    def part(self, epoch: int, first: int, last: int) -> Part:
        return Part.of(first, last, self.experiment.train.seed, (epoch - 1) * self.steps, self.count)

    def train(self, state: TrainState, losses: Float[Array, " steps"], batches: Batches, part: Part) -> Trained:
        trained: Trained = train_steps(state, losses, batches, part, recipe=self.recipe)
        return trained

    def is_sound(self, state: Bool[Array, ""], losses: Float[np.ndarray, " some"]) -> bool:
        """Whether training can go on from a state, sound or not, to which steps with these losses led."""
        skips = self.experiment.optimizer.nonfinite == "skip"
        return bool(jax.device_get(state)) and (skips or bool(np.isfinite(losses).all()))

    def fault(self, state: TrainState, epoch: int, first: int, last: int) -> DivergedError:
        """What to say of steps that led from `state` to something not finite: they are trained again, one by one."""
        self.ahead, losses = None, jax.device_put(np.zeros(self.steps, np.float32))
        for step in range(first, last):
            batches, part = self.feed(epoch, step, step + 1), self.part(epoch, step, step + 1)
            after = self.train(state, losses, batches, part)
            if not self.is_sound(after.sound, jax.device_get(after.losses)[step : step + 1]):
                break
            state = after.state
        met = self.feed.order_of(epoch)[step][: self.count - step * self.batch_size]
        number = jax.device_put(np.uint32((epoch - 1) * self.steps + step))
        key = key_of(part.seed, number) if self.recipe.draws else None
        batch = batch_of(batches, step, step, fill_weights(met.size, (self.batch_size,)))
        batch, dropping = prepared(batch, key, self.recipe)
        what = first_fault(state.params, batch, after.state.params, self.experiment, dropping)
        named = " ".join(map(str, self.indices[met[:NAMED]])) + f" and {met.size - NAMED:,} more" * (met.size > NAMED)
        return diverged(
            self.experiment,
            f"epoch {epoch}, at step {step + 1} of {self.steps}",
            f"{what} not finite; its batch has the training examples {named}",
        )
