"""What an experiment is: typed, frozen settings. The command line reads the fields, their meaning and their values."""

import math
import numbers
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

from jaxmlp.data.distortions import Distort
from jaxmlp.errors import ExperimentError
from jaxmlp.network import Network
from jaxmlp.training.optimizers import refuse_unknown, takes_schedule


def _number(settings: object, name: str, kind: type[int | float], least: int, expected: str) -> None:
    """Makes a field a plain int or float (NumPy's are no JSON), or raises an ExperimentError.

    `name` is the section and the field; the number must be finite, and `least` or more.
    """
    field_ = name.partition(".")[2]
    value: Any = getattr(settings, field_)
    abstract = numbers.Integral if kind is int else numbers.Real
    right = isinstance(value, abstract) and not isinstance(value, bool)
    if not right or not math.isfinite(value) or value < least:
        whole = "a whole number, " * (kind is int and not right)
        raise ExperimentError(f"{name} is {value!r}: expected {whole}{expected}")
    object.__setattr__(settings, field_, kind(value))


@dataclass(frozen=True)
class Data:
    """Where the examples come from.

    Attributes:
        source: mnist (in the package), idx:FOLDER, npz:FILE or tfds:NAME (of TensorFlow Datasets); dct: and one of
            them, for its images' lowest frequencies.
        validation: Training examples held out, by seed, to validate on; 0 for none.
        standardize: Every feature less its mean, over its standard deviation, both of the examples trained on.
        examples: Training examples used, drawn by seed; by default all that are not held out.
    """

    source: str = "mnist"
    validation: int = 5000
    standardize: bool = False
    examples: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.source, str):
            raise ExperimentError(f"data.source is {self.source!r}: expected mnist, idx:FOLDER, npz:FILE or tfds:NAME")
        _number(self, "data.validation", int, 0, "0 or more examples")
        if self.examples is not None:
            _number(self, "data.examples", int, 1, "1 or more examples, or None")
        if not isinstance(self.standardize, bool):
            raise ExperimentError(f"data.standardize is {self.standardize!r}: expected True or False")


@dataclass(frozen=True)
class Optimizer:
    """How a gradient becomes an update.

    Attributes:
        name: sgd, plain gradient descent, or adam, adamw, rmsprop, lion, muon, ...: optax's by their names, but for a
            few, such as lbfgs, that ask for more than the gradient.
        learning_rate: Step size: an update is this times the gradient (for adam, times its normalised form, for which
            0.001 is usual).
        parameters: The optimizer's others, by optax's names, such as momentum 0.9 nesterov 1; in Python pairs, or a
            dictionary; its own defaults by default.
        weight_decay: Decoupled: kernels, not biases, lose this times the learning rate a step; but dadapt_adamw,
            madgrad and prodigy have ways of their own. By default the optimizer's own.
        clip_norm: A gradient whose norm, over all layers, is larger is scaled down to it; by default none is.
        max_norm: After each update, a unit's incoming weights whose norm is larger are scaled down to it; by default
            none are.
        nonfinite: What becomes of a gradient that is not finite: stop ends the run, skip leaves the step out and counts
            it.
    """

    name: str = "sgd"
    learning_rate: float = 1.0
    parameters: tuple[tuple[str, float], ...] = ()
    weight_decay: float | None = None
    clip_norm: float | None = None
    max_norm: float | None = None
    nonfinite: Literal["stop", "skip"] = "stop"

    def __post_init__(self) -> None:
        if self.nonfinite not in ("stop", "skip"):
            raise ExperimentError(f"optimizer.nonfinite is {self.nonfinite!r}: expected stop or skip")
        _number(self, "optimizer.learning_rate", float, 0, "a finite number of 0 or more")
        for name in ("weight_decay", "clip_norm", "max_norm"):
            if getattr(self, name) is not None:
                _number(self, f"optimizer.{name}", float, 0, "a finite number of 0 or more, or None")
        for name in ("clip_norm", "max_norm"):
            if getattr(self, name) == 0:
                raise ExperimentError(f"optimizer.{name} is 0.0: expected a finite number above 0, or None")
        try:
            parameters = tuple(sorted((str(name), float(value)) for name, value in dict(self.parameters).items()))
        except (TypeError, ValueError):
            raise ExperimentError(
                f"optimizer.parameters is {self.parameters!r}: expected pairs of a name and a number, such as "
                "(('momentum', 0.9),)"
            ) from None
        if len(parameters) < len(self.parameters) or not all(math.isfinite(value) for _, value in parameters):
            pairs = self.parameters.items() if isinstance(self.parameters, Mapping) else self.parameters
            given = " ".join(f"{name} {value}" for name, value in pairs)
            raise ExperimentError(f"optimizer.parameters is {given}: expected each name once, and finite numbers")
        object.__setattr__(self, "parameters", parameters)
        refuse_unknown(self)


@dataclass(frozen=True)
class Schedule:
    """How the learning rate changes while training.

    Attributes:
        name: cosine falls to `end` of it just after the last step; exponential by `factor` an epoch; step by it `every`
            epochs.
        warmup: Epochs in which it grows evenly from 0, before all else.
        factor: Of exponential and step: what the learning rate is multiplied by.
        every: Of step: epochs from one to the next.
        end: Of cosine: the last learning rate, as a share of the first.
    """

    name: Literal["constant", "cosine", "exponential", "step"] = "constant"
    warmup: float = 0.0
    factor: float = 0.95
    every: float = 10.0
    end: float = 0.0

    def __post_init__(self) -> None:
        if self.name not in ("constant", "cosine", "exponential", "step"):
            raise ExperimentError(f"schedule.name is {self.name!r}: expected constant, cosine, exponential or step")
        for name in ("warmup", "end"):
            _number(self, f"schedule.{name}", float, 0, "a finite number of 0 or more")
        for name in ("factor", "every"):
            _number(self, f"schedule.{name}", float, 0, "a finite number above 0")
            if getattr(self, name) == 0:
                raise ExperimentError(f"schedule.{name} is 0.0: expected a finite number above 0")


@dataclass(frozen=True)
class Train:
    """How training runs.

    Attributes:
        epochs: Passes over the training examples.
        batch_size: Examples a step; a last batch with fewer is trained on too.
        seed: Of the initial parameters, the examples that are held out or used, and their order.
        gradient: manual: the backward pass derived by hand (jaxmlp.backprop); auto: jax.grad.
    """

    epochs: int = 30
    batch_size: int = 32
    seed: int = 0
    gradient: Literal["manual", "auto"] = "manual"

    def __post_init__(self) -> None:
        _number(self, "train.epochs", int, 1, "1 or more")
        _number(self, "train.batch_size", int, 1, "1 or more examples")
        _number(self, "train.seed", int, 0, "a number from 0 to 4294967295")
        if self.seed >= 2**32:
            raise ExperimentError(f"train.seed is {self.seed}: expected a number from 0 to 4294967295")
        if self.gradient not in ("manual", "auto"):
            raise ExperimentError(f"train.gradient is {self.gradient!r}: expected manual or auto")


QuantityName = Literal[
    "loss",
    "noise_scale",
    "norm_test",
    "inner_product_test",
    "orthogonality_test",
    "gsnr",
    "early_stopping",
    "gradient_norm",
    "gradient_histogram",
    "update_size",
    "update_ratio",
    "distance",
    "saturation",
    "dead_units",
    "example_losses",
    "example_norms",
    "example_cosines",
]


@dataclass(frozen=True)
class Record:
    """What is recorded while training, for `jaxmlp diagnose`.

    Attributes:
        quantities: Names, each explained in docs/diagnosis.md; none by default.
        every: Steps from one recording to the next; the first step of every epoch is recorded.
    """

    quantities: tuple[QuantityName, ...] = ()
    every: int = 1

    def __post_init__(self) -> None:
        names = get_args(QuantityName)
        if not isinstance(self.quantities, tuple | list):
            raise ExperimentError(f"record.quantities is {self.quantities!r}: expected a tuple of names")
        for name in self.quantities:
            if name not in names:
                raise ExperimentError(f"record.quantities has {name!r}: expected some of {', '.join(names)}")
        if len({*self.quantities}) < len(self.quantities):
            raise ExperimentError(f"record.quantities is {' '.join(self.quantities)}: expected each once")
        object.__setattr__(self, "quantities", tuple(self.quantities))
        _number(self, "record.every", int, 1, "1 or more steps")


@dataclass(frozen=True)
class Checkpoint:
    """What is kept while training, to go on from after whatever happens: after every epoch that is not very short.

    Attributes:
        keep: The newest checkpoints that are kept, beside that of the best epoch by validation.
        seconds: Within an epoch, at least this long from one to the next; in private and recorded ones there is none.
    """

    keep: int = 3
    seconds: float = 60.0

    def __post_init__(self) -> None:
        _number(self, "checkpoint.keep", int, 1, "1 or more")
        _number(self, "checkpoint.seconds", float, 0, "0 or more seconds")


@dataclass(frozen=True)
class Privacy:
    """What a run may tell of any single training example; jaxmlp.training.privacy says what is guaranteed.

    Attributes:
        epsilon: The privacy that the whole run may spend, by DP-SGD; None trains without.
        delta: The probability that goes with epsilon, and is of no consequence without; far below 1 / training
            examples.
        clip: The norm to which an example's gradient is clipped, from 1e-6 to 1e6; of no consequence without epsilon.
    """

    epsilon: float | None = None
    delta: float = 1e-5
    clip: float = 1.0

    def __post_init__(self) -> None:
        bounds: dict[str, tuple[Callable[[float], bool], str]] = {
            "epsilon": (lambda x: 0 < x <= 1e4, "a number above 0, up to 10000"),
            "delta": (lambda x: 0 < x < 1, "a number between 0 and 1"),
            "clip": (lambda x: 1e-6 <= x <= 1e6, "a number from 1e-6 to 1e6"),
        }
        for name in [*bounds][self.epsilon is None :]:
            within, expected = bounds[name]
            _number(self, f"privacy.{name}", float, 0, expected)
            if not within(getattr(self, name)):
                raise ExperimentError(f"privacy.{name} is {getattr(self, name)!r}: expected {expected}")


@dataclass(frozen=True)
class Experiment:
    """A network and how it is trained: everything that a run needs.

    Each field has a class of its own, which says what its settings mean: `help(jaxmlp.Train)`.

    Raises, here and in its parts:
        ExperimentError: for a setting out of range.
        NetworkError: for a network that can't be.
    """

    network: Network
    data: Data = field(default_factory=Data)
    optimizer: Optimizer = field(default_factory=Optimizer)
    train: Train = field(default_factory=Train)
    record: Record = field(default_factory=Record)
    privacy: Privacy = field(default_factory=Privacy)
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    schedule: Schedule = field(default_factory=Schedule)
    distort: Distort = field(default_factory=Distort)

    def __post_init__(self) -> None:
        kinds = {"network": Network, "data": Data, "optimizer": Optimizer, "schedule": Schedule, "train": Train}
        kinds |= {"distort": Distort, "record": Record, "privacy": Privacy, "checkpoint": Checkpoint}
        for name, kind in kinds.items():
            part = getattr(self, name)
            if not isinstance(part, kind):
                raise ExperimentError(f"{name} is {part!r}: expected a jaxmlp.{kind.__name__}")
        if self.record.quantities and self.train.gradient != "manual":
            raise ExperimentError(
                f"train.gradient is {self.train.gradient!r}, but record.quantities are read off the hand-derived pass: "
                "expected manual, or no record.quantities"
            )
        if self.privacy.epsilon is not None and self.train.gradient == "auto":
            raise ExperimentError(
                f"train.gradient is 'auto', but privacy.epsilon is {self.privacy.epsilon:g}: expected manual, in whose "
                "pass private training clips each example's gradient"
            )
        if self.privacy.epsilon is not None and self.record.quantities:
            raise ExperimentError(
                f"record.quantities is {' '.join(self.record.quantities)}, but privacy.epsilon is "
                f"{self.privacy.epsilon:g}: expected none of them, as they would tell what privacy hides"
            )
        if self.privacy.epsilon is not None and self.data.standardize:
            raise ExperimentError(
                f"data.standardize is True, but privacy.epsilon is {self.privacy.epsilon:g}: expected False, as the "
                "features' mean and deviation would tell of the examples without noise"
            )
        changes = self.schedule.name != "constant" or self.schedule.warmup > 0
        if changes and not takes_schedule(self.optimizer.name):
            raise ExperimentError(
                f"schedule.name is {self.schedule.name!r}, with a warmup of {self.schedule.warmup:g}, but optax gives "
                f"{self.optimizer.name} one learning rate for all steps: expected constant, and a warmup of 0"
            )
        if self.distort and self.data.standardize:
            raise ExperimentError(
                "data.standardize is True, but distort takes all beyond an image's edges for 0: expected one of the two"
            )
        if self.optimizer.nonfinite == "skip" and (self.record.quantities or self.privacy.epsilon is not None):
            raise ExperimentError(
                "optimizer.nonfinite is 'skip', but the run records or is private: expected stop, or neither "
                "record.quantities nor privacy.epsilon"
            )

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_dict(settings: dict[str, Any]) -> "Experiment":
        """The inverse of `as_dict`, also after a round trip through JSON.

        >>> experiment = Experiment(Network((784, 10)))
        >>> Experiment.from_dict(experiment.as_dict()) == experiment
        True
        """
        try:
            unknown = {*map(str, settings)} - {field.name for field in fields(Experiment)}
            if unknown:
                raise TypeError(f"unknown: {', '.join(sorted(unknown))}")
            network = settings["network"] | {"sizes": tuple(settings["network"]["sizes"])}  # JSON knows lists only
            record = settings.get("record", {})  # older runs have none
            optimizer = settings["optimizer"]
            parameters = tuple(tuple(pair) for pair in optimizer.get("parameters", ()))
            return Experiment(
                network=Network(**network),
                data=Data(**settings["data"]),
                optimizer=Optimizer(**optimizer | {"parameters": parameters}),
                schedule=Schedule(**settings.get("schedule", {})),
                train=Train(**settings["train"]),
                distort=Distort(**settings.get("distort", {})),
                record=Record(**record | {"quantities": tuple(record.get("quantities", ()))}),
                privacy=Privacy(**settings.get("privacy", {})),
                checkpoint=Checkpoint(**settings.get("checkpoint", {})),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ExperimentError(f"not an experiment's settings: {error!r}") from error


def refuse_no_experiment(given: object, name: str = "experiment") -> None:
    """Raises an ExperimentError for what is none."""
    if not isinstance(given, Experiment):
        raise ExperimentError(f"{name} has type {type(given).__name__}: expected a jaxmlp.Experiment")
