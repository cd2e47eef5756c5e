"""What stands out in a recorded run, in words: a table of rules, each a function of a run's `Figures`.

docs/diagnosis.md gives the reasons for the thresholds.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from jaxmlp.data.dataset import Dataset, Examples, split_indices
from jaxmlp.errors import ExperimentError, RunError
from jaxmlp.training.fit import load_for
from jaxmlp.training.instruments import OF_EXAMPLES
from jaxmlp.training.optimizers import rate
from jaxmlp.training.recording import Recording, finite_mean
from jaxmlp.training.run import CHECKSUM, Kept, Run, load, read

ADVISED = "noise_scale gradient_norm update_ratio saturation dead_units example_losses"
"""What the rules need; docs/diagnosis.md has what it costs."""


@dataclass(frozen=True)
class Suspect:
    """A training example whose label the network contradicts.

    Attributes:
        index: Among all training examples of the data set, before the validation split.
        said: The label that the network gives at the end.
        probability: That the network gives `said`, among the labels.
        loss: Its mean loss in the second half of the epochs.
    """

    index: int
    label: int
    said: int
    probability: float
    loss: float


@dataclass(frozen=True)
class Figures:
    """A run as the rules see it.

    Attributes:
        recordings: What each epoch recorded.
        examples: Those that were trained on, in the order of the recordings.
        indices: Of them among all training examples of the data set, before the validation split.
        shape: Of one example.
        ranking: Positions in `examples`, from the one most likely mislabelled on; empty where it isn't known.
        suspects: The first of the ranking that the network contradicts and is sure about, whatever their number.
    """

    run: Run
    recordings: tuple[Recording, ...]
    examples: Examples
    indices: Int[np.ndarray, " N"]
    shape: tuple[int, ...]
    ranking: Int[np.ndarray, " ranked"]
    suspects: tuple[Suspect, ...]

    @property
    def steps(self) -> int:
        """Steps an epoch."""
        return math.ceil(self.examples.size / self.batch)

    @property
    def batch(self) -> int:
        return min(self.run.experiment.train.batch_size, self.examples.size)

    def per_step(self, name: str) -> Float[np.ndarray, "steps ..."] | None:
        """A quantity step by step through all epochs; None where it was not recorded."""
        if any(name not in recording for recording in self.recordings):
            return None
        return np.concatenate([recording[name] for recording in self.recordings])

    def per_epoch(self, name: str) -> Float[np.ndarray, "epochs ..."] | None:
        """Its mean over each epoch's recorded steps; NaN where an epoch has none that is finite."""
        if any(name not in recording for recording in self.recordings):
            return None
        return np.stack([finite_mean(recording[name]) for recording in self.recordings])


def read_figures(path: str | PathLike[str], dataset: Dataset | None = None) -> Figures:
    """The figures of the run in a folder; `dataset` is what it was trained on, by default what its experiment names.

    Raises:
        RunError: where the folder holds no run, or one that recorded nothing or was trained on other data.
        DataError: for data that can't be read.
    """
    folder, there = Path(path), read(path)
    record = there.experiment.record
    if not record.quantities:
        raise RunError(
            f"{folder}: the run recorded nothing: expected one trained with --record.quantities {ADVISED}, or "
            "some of them"
        )
    if not there.history:
        why = f" ({there.stopped['message']})" if there.stopped.get("message") else " yet"
        raise RunError(f"{folder}: no epoch has ended{why}: expected a run that has recorded one")
    run = load(path)
    recordings: list[Recording] = []
    for line in run.history:
        file = folder / "recorded" / f"{line.epoch}.npz"
        try:
            with file.open("rb") as opened, np.load(opened, allow_pickle=False) as arrays:
                recordings.append({name: arrays[name] for name in record.quantities})
            for name, values in recordings[-1].items():
                expected = recordings[0][name].shape
                if values.dtype.kind != "f" or not values.ndim or values.shape != expected:
                    raise ValueError(f"{name} is {values.dtype} of shape {values.shape}: expected floats, {expected}")
        except FileNotFoundError as error:
            raise RunError(f"{file}: no such file: expected what epoch {line.epoch} recorded") from error
        except Exception as error:  # of whatever kind zipfile, and NumPy with a damaged header raise
            raise RunError(f"{file}: can't be read as what epoch {line.epoch} recorded: {error}") from error
    given, dataset = dataset, data_of(folder, there) if dataset is None else dataset
    chosen, seed = run.experiment.data, run.experiment.train.seed
    _, rest = split_indices(dataset.train.size, chosen.validation, seed, chosen.examples)
    kept = {recording[name].shape for recording in recordings for name in OF_EXAMPLES if name in recording}
    if kept - {rest.shape}:
        found = " or ".join(" x ".join(map(str, shape)) for shape in sorted(kept))
        raise RunError(f"{folder}: recorded {found} training examples, but {dataset.name} leaves {len(rest)}")
    if given is not None and CHECKSUM in there.data and given.checksum() != there.data[CHECKSUM]:
        raise RunError(
            f"{folder}: the run was trained on another data set than {given.name}, whose checksum is "
            f"{given.checksum()} and was {there.data[CHECKSUM]}: expected the same examples in the same order, those "
            "for the test too"
        )
    examples = dataset.train.take(rest)
    bare = Figures(run, tuple(recordings), examples, rest, dataset.shape, np.zeros(0, np.int64), ())
    ranked = replace(bare, ranking=rank(bare))
    return replace(ranked, suspects=suspects(ranked))


def data_of(folder: Path, there: Kept) -> Dataset:
    """What the experiment's `data.source` names, if it is what the run was trained on; see `read_figures`."""
    source, name = there.experiment.data.source, there.data.get("name")
    other = RunError(
        f"{folder}: the run was trained on {name}, which is not what data.source names, {source}: expected to be given "
        "it, by jaxmlp.training.diagnosis.read_figures(folder, dataset)"
    )
    try:
        found = load_for(there.experiment)
    except ExperimentError as error:
        raise other from error
    checksum = found.checksum()
    if found.name != name or there.data.get(CHECKSUM, checksum) != checksum:
        raise other
    return found


def stayed(figures: Figures, name: str) -> Float[np.ndarray, " N"] | None:
    """A quantity of every training example, in the mean over the second half of the epochs; NaN for those not met.

    In the first everything is large, and where not every step is recorded chance would decide who was met in them.
    """
    if any(name not in recording for recording in figures.recordings):
        return None
    return finite_mean(second_half(np.stack([recording[name] for recording in figures.recordings])))


def rank(figures: Figures) -> Int[np.ndarray, " ranked"]:
    """The training examples from the one most likely mislabelled on, by the losses in the run's second half.

    A loss that stays large is what the network cannot reconcile with the rest. The norms of their gradients say the
    same of a cross-entropy only: through sigmoid outputs and a squared error, the gradient of an example that is
    contradicted with certainty vanishes.
    """
    values = stayed(figures, "example_losses")
    if values is None or not figures.run.labelled:
        return np.zeros(0, np.int64)
    order = np.argsort(-np.nan_to_num(values, nan=-np.inf), kind="stable")
    return order[: np.isfinite(values).sum()]


def contradicted(figures: Figures) -> Int[np.ndarray, " contradicted"]:
    """Those of the ranking's first 2 % that the network labels otherwise, in its order: positions in `examples`."""
    first: np.ndarray = figures.ranking[: math.ceil(0.02 * figures.examples.size)]
    found: np.ndarray = first[figures.run.predict(figures.examples.inputs[first]) != figures.examples.targets[first]]
    return found


SURE = 0.9


def suspects(figures: Figures) -> tuple[Suspect, ...]:
    """Those of the ranking's first 2 % that the network labels otherwise, with a probability above 0.9."""
    run, losses = figures.run, stayed(figures, "example_losses")
    if not figures.ranking.size or losses is None or run.experiment.network.output not in ("softmax", "sigmoid"):
        return ()
    first = contradicted(figures)
    probabilities = run.probabilities(figures.examples.inputs[first])
    said, labels = probabilities.argmax(axis=1), figures.examples.targets[first]
    found = []
    for i, position in enumerate(first):
        if probabilities[i, said[i]] > SURE:
            own = (int(figures.indices[position]), int(labels[i]), int(said[i]))
            found.append(Suspect(*own, float(probabilities[i, said[i]]), float(losses[position])))
    return tuple(found)


def chance(figures: Figures) -> float | None:
    """The cost of the best constant outputs; None where that has no simple form, or one output fits all examples."""
    network, y = figures.run.experiment.network, figures.examples.targets
    if figures.run.labelled and network.sizes[-1] > 1:
        y = np.eye(network.sizes[-1])[y]
    wanted = np.asarray(y, float).reshape(len(y), -1)
    p = wanted.mean(axis=0)
    if network.loss == "squared_error":
        cost = wanted.var(axis=0).sum()
    elif network.loss in ("cross_entropy", "binary_cross_entropy"):
        cost = entropy(p) + (entropy(1 - p) if network.loss == "binary_cross_entropy" else 0)
    else:
        return None
    return float(cost) if cost > 0 else None


def entropy(p: Float[np.ndarray, " n"]) -> float:
    """-sum p log p."""
    return -float((p * np.log(np.where(p > 0, p, 1))).sum())


def finished(figures: Figures) -> bool:
    """Whether next to nothing is left to learn: the last epoch's loss is below 2 % of that of constant outputs."""
    best = chance(figures)
    return best is not None and figures.run.history[-1].train_loss < 0.02 * best


def second_half(values: np.ndarray) -> np.ndarray:
    """The later epochs, along the first axis; the one in the middle too."""
    return values[len(values) // 2 :]


def kept_promise(figures: Figures) -> float | None:
    """How much of the fall that the gradients promise the training loss makes, in the second half of the epochs.

    To first order a step of gradient descent lowers the cost by `learning_rate |G|^2`. From the middle of an epoch to
    that of the next the loss falls by the differences of the epochs' means, and should by the sum of those products. A
    ratio near 1 means that steps are so short that neither curvature nor noise is felt. None where `rates` is.
    """
    squares, by = figures.per_epoch("noise_scale"), rates(figures)
    if squares is None or by is None or len(squares) < 2:
        return None
    promised = by * figures.steps * squares[:, 1]
    between = (promised[1:] + promised[:-1]) / 2
    fall = -np.diff([line.train_loss for line in figures.run.history])
    total = float(second_half(between).sum())
    return float(second_half(fall).sum()) / total if total > 0 else None


def rates(figures: Figures) -> Float[np.ndarray, " epochs"] | None:
    """How far a gradient is gone along in the end, times its length: of each epoch, by the schedule in its middle.

    Of sgd the learning rate; with a momentum m, by which each gradient is gone along again and again, 1 / (1 - m) of
    it. None for other optimizers, and where gradients are clipped or weights limited.
    """
    experiment = figures.run.experiment
    optimizer, momentum = experiment.optimizer, dict(experiment.optimizer.parameters).get("momentum", 0.0)
    limits = (optimizer.clip_norm, optimizer.max_norm)
    if optimizer.name != "sgd" or limits != (None, None):
        return None
    scheduled = rate(optimizer, experiment.schedule, figures.steps, experiment.train.epochs)
    middles = (np.arange(len(figures.run.history)) + 0.5) * figures.steps
    return np.array([float(scheduled(middle)) for middle in middles]) / (1 - momentum)


def stuck(figures: Figures) -> bool:
    """Whether the last epoch's loss is no better than that of constant outputs."""
    best = chance(figures)
    return best is not None and figures.run.history[-1].train_loss > 0.98 * best


def flat_from_the_start(figures: Figures) -> tuple[int, float] | None:
    """The hidden layer (1, 2, ...) most saturated on the run's first batch, if nearly all of it is, and its share."""
    flat = figures.per_step("saturation")
    if flat is None or not flat.shape[1] or not flat[0].max() > 0.9:
        return None
    return 1 + int(flat[0].argmax()), float(flat[0].max())


BEHIND = 0.01
"""Of the largest change of a layer, each in proportion to its norm: one that changes by less is left behind."""


def left_behind(figures: Figures) -> tuple[int, int, Float[np.ndarray, " L"]] | None:
    """The layers (1, 2, ...) that typical steps leave behind and change most, and those steps' update ratios.

    Where the loss is stuck, the first must have been left behind by the run's first update, too: long steps break
    others. A warm-up's first step updates nothing.
    """
    each, steps = figures.per_epoch("update_ratio"), figures.per_step("update_ratio")
    if each is None or steps is None or not (steps.max(axis=1) > 0).any():
        return None
    typical, first = np.median(each, axis=0), steps[steps.max(axis=1) > 0][0]
    behind = typical < BEHIND * typical.max()
    if stuck(figures):
        behind &= first < BEHIND * first.max()
    if not behind.any():
        return None
    return 1 + int(np.where(behind, typical, np.inf).argmin()), 1 + int(typical.argmax()), typical


def rate_too_high(figures: Figures) -> str | None:
    """The loss is no better than constant outputs' or has risen again, and not for want of longer steps."""
    history, rate = figures.run.history, figures.run.experiment.optimizer.learning_rate
    last, lowest = history[-1].train_loss, min(line.train_loss for line in history)
    if last > 1.2 * lowest and not finished(figures):
        return f"learning rate too high? the training loss has risen from {lowest:.4f} to {last:.4f} (rate {rate:g})"
    if not stuck(figures) or layer_that_does_not_learn(figures):
        return None
    promise, killed = kept_promise(figures), killed_units(figures)
    if promise is None and killed is None and not shaken(figures):
        return None
    if promise is not None and promise > 0.5 and alive(figures):  # too low rather
        return None
    ending = "" if killed is None else f"; {killed[1]:.0f} % of hidden layer {killed[0]}'s units pass nothing back"
    return (
        f"learning rate too high: at {rate:g} the training loss is {last:.4f} after {len(history)} epochs, where "
        f"constant outputs give {chance(figures):.4f}{ending}"
    )


def killed_units(figures: Figures) -> tuple[int, float] | None:
    """The hidden layer (1, 2, ...) that has lost most units since the first step, a tenth or more, and its dead ones.

    They are those of the last epoch, in per cent. Some of relu's are dead from the start, on inputs of one sign.
    """
    dead, begun = figures.per_epoch("dead_units"), figures.per_step("dead_units")
    if dead is None or begun is None or not dead.size or not (dead[-1] - begun[0]).max() > 0.1:
        return None
    most = int((dead[-1] - begun[0]).argmax())
    return 1 + most, 100 * float(dead[-1][most])


def shaken(figures: Figures) -> bool:
    """Whether a typical step changes a layer by more than a hundredth of its norm."""
    ratios = figures.per_step("update_ratio")
    return ratios is not None and bool(np.median(ratios, axis=0).max() > 0.01)


def nothing_learned(figures: Figures) -> str | None:
    """The loss is no better than constant outputs', and nothing that was recorded says why."""
    if not stuck(figures) or any(rule(figures) for rule in (rate_too_high, rate_too_low, layer_that_does_not_learn)):
        return None
    rate, last = figures.run.experiment.optimizer.learning_rate, figures.run.history[-1].train_loss
    asked = "learning rate too low?" if alive(figures) else "its gradient has all but vanished: learning rate too high?"
    return (
        f"nothing learned: the training loss is {last:.4f}, where constant outputs give {chance(figures):.4f}; "
        f"{asked} ({rate:g})"
    )


def alive(figures: Figures) -> bool:
    """Whether the gradient is not lost: its norm in the last epoch is above a thousandth of the run's first."""
    norms = figures.per_step("gradient_norm")
    if norms is None:
        return True
    last = np.nan_to_num(finite_mean(figures.recordings[-1]["gradient_norm"]))
    return bool(last.max() > 1e-3 * norms[0].max())


def rate_too_low(figures: Figures) -> str | None:
    """The loss still falls as if there were neither curvature nor noise."""
    promise, rate = kept_promise(figures), figures.run.experiment.optimizer.learning_rate
    if promise is None or promise < 0.5 or not alive(figures) or finished(figures):
        return None
    return (
        f"learning rate too low: at {rate:g} the training loss still falls by {100 * promise:.0f} % of what its "
        "gradients promise to first order; longer steps would be felt"
    )


def layer_that_does_not_learn(figures: Figures) -> str | None:
    """A hidden layer flat from the start, or one whose steps are tiny beside another's."""
    flat = flat_from_the_start(figures)
    if flat is not None:
        layer, share = flat
        scale = "; are the inputs scaled to about 1?" if layer == 1 else ""
        return f"hidden layer {layer} is saturated: {100 * share:.0f} % of its units are flat on the first batch{scale}"
    behind = left_behind(figures)
    if behind is None:
        return None
    slow, fast, typical = behind
    return (
        f"layer {slow} hardly learns: a step changes it by {typical[slow - 1]:.1e} of its norm, layer {fast} by "
        f"{typical[fast - 1]:.1e} (vanishing gradient?)"
    )


def dying_units(figures: Figures) -> str | None:
    """Many units that pass nothing back, in a network that learns all the same: mostly long steps drove them there."""
    killed = killed_units(figures)
    if killed is None or killed[1] < 25 or figures.batch < 8 or flat_from_the_start(figures):
        return None
    if stuck(figures) or finished(figures):  # no better than without; or the units have done what they were to do
        return None
    layer, share = killed
    return (
        f"hidden layer {layer} loses units: {share:.0f} % pass nothing back on a whole batch; "
        f"learning rate too high? ({figures.run.experiment.optimizer.learning_rate:g})"
    )


def batch_past_noise_scale(figures: Figures) -> str | None:
    """Twice the batch would no longer give nearly twice the progress."""
    raw = figures.per_epoch("noise_scale")
    if raw is None or not alive(figures) or flat_from_the_start(figures) or finished(figures):
        return None
    if rate_too_high(figures) or nothing_learned(figures):
        return None
    variance, square = second_half(raw).mean(axis=0)
    if not square > 0 or not figures.batch > 2 * variance / square:
        return None
    return (
        f"batch size past the noise scale: batches of {figures.batch:,} where the noise scale is "
        f"{variance / square:,.0f}; smaller ones would get as far with fewer examples"
    )


MISLABELLED = 0.007
"""Of the training examples; clean MNIST has 0.15 to 0.64 %, with 1 % of its labels changed it is 0.86 to 1.26 %."""


def mislabelled(figures: Figures) -> str | None:
    """More examples than an ordinary data set has, whose labels a good network contradicts and is sure about."""
    count, size = len(figures.suspects), figures.examples.size
    if count < max(10, MISLABELLED * size) or stuck(figures) or accuracy(figures) < 0.8:
        return None
    if dying_units(figures):  # such a network contradicts right labels too
        return None
    first = figures.suspects[0]
    return (
        f"{count:,} of {size:,} training examples look mislabelled or ambiguous, first example {first.index} with "
        f"label {first.label}, which the network takes for {first.said} ({100 * first.probability:.1f} %)"
    )


def accuracy(figures: Figures) -> float:
    """Of labels: on the validation examples, or without any on some of the training examples."""
    known = figures.run.history[-1].validation_accuracy
    some = figures.examples.take(slice(2000))
    return float((figures.run.predict(some.inputs) == some.targets).mean()) if known is None else known


RULES: dict[str, Callable[[Figures], str | None]] = {
    "rate too high": rate_too_high,
    "rate too low": rate_too_low,
    "nothing learned": nothing_learned,
    "layer": layer_that_does_not_learn,
    "units": dying_units,
    "batch": batch_past_noise_scale,
    "labels": mislabelled,
}


def unjudged(figures: Figures) -> str | None:
    """What a rule could have used and the run did not record; None where it is nothing."""
    missing = [name for name in ADVISED.split() if name not in figures.run.experiment.record.quantities]
    return f"not recorded, and so not judged by: {' '.join(missing)}" if missing else None


def verdict(figures: Figures, lines: list[str]) -> list[str]:
    """The lines, if there are any, and what could not be judged: what a person is told."""
    missing = unjudged(figures)
    return [*(lines or ["nothing stands out"]), *([missing] if missing else [])]


def findings(figures: Figures) -> dict[str, str]:
    """What stands out, by the rule that says it, in a line each; empty for a healthy run."""
    said = {name: rule(figures) for name, rule in RULES.items()}
    return {name: line for name, line in said.items() if line is not None}
